package main

import (
	"context"
	"encoding/json"
	"fmt"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	// Messages that resources hold in an Any.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
)

// kinds are in the order in which a linear cache's changes go out: what is referred to comes first.
var kinds = []struct {
	typeURL resource.Type
	index   types.ResponseType // in a snapshot
	message func() types.Resource
}{
	{resource.SecretType, types.Secret, func() types.Resource { return &tls.Secret{} }},
	{resource.EndpointType, types.Endpoint, func() types.Resource { return &endpoint.ClusterLoadAssignment{} }},
	{resource.ClusterType, types.Cluster, func() types.Resource { return &cluster.Cluster{} }},
	{resource.RouteType, types.Route, func() types.Resource { return &route.RouteConfiguration{} }},
	{resource.ListenerType, types.Listener, func() types.Resource { return &listener.Listener{} }},
}

// snapshot is one line of input: everything there is, by type URL. Types have versions of their own.
type snapshot struct {
	Version   string                       `json:"version"`
	Versions  map[string]string            `json:"versions"`
	Resources map[string][]json.RawMessage `json:"resources"`
}

func (s *snapshot) parse() (map[resource.Type][]types.Resource, error) {
	all := map[resource.Type][]types.Resource{}
	for _, k := range kinds {
		for _, text := range s.Resources[k.typeURL] {
			m := k.message()
			if err := protojson.Unmarshal(text, m); err != nil {
				return nil, fmt.Errorf("%s: %w", k.typeURL, err)
			}
			all[k.typeURL] = append(all[k.typeURL], m)
		}
	}
	return all, nil
}

// driven is a cache that takes snapshots.
type driven struct {
	cache.Cache
	apply func(s *snapshot, resources map[resource.Type][]types.Resource) error
}

// take applies a snapshot and returns its version.
func (d *driven) take(line []byte) (string, error) {
	var s snapshot
	if err := json.Unmarshal(line, &s); err != nil {
		return "", err
	}
	resources, err := s.parse()
	if err != nil {
		return "", err
	}
	return s.Version, d.apply(&s, resources)
}

func newCache(kind string, ads bool, node string) (*driven, error) {
	switch kind {
	case "snapshot":
		return newSnapshotCache(ads, node), nil
	case "linear":
		return newLinearCache(), nil
	}
	return nil, fmt.Errorf("no cache is called %q", kind)
}

func newSnapshotCache(ads bool, node string) *driven {
	c := cache.NewSnapshotCache(ads, cache.IDHash{}, nil)
	return &driven{c, func(s *snapshot, resources map[resource.Type][]types.Resource) error {
		made, err := cache.NewSnapshot(s.Version, resources)
		if err != nil {
			return err
		}
		for _, k := range kinds {
			made.Resources[k.index].Version = s.Versions[k.typeURL]
		}
		if err := made.Consistent(); err != nil {
			return err
		}
		return c.SetSnapshot(context.Background(), node, made)
	}}
}

// newLinearCache has one linear cache a type; only what differs is told to them.
func newLinearCache() *driven {
	linear := map[resource.Type]*cache.LinearCache{}
	mux := &cache.MuxCache{
		Classify:      func(r *cache.Request) string { return r.GetTypeUrl() },
		ClassifyDelta: func(r *cache.DeltaRequest) string { return r.GetTypeUrl() },
		Caches:        map[string]cache.Cache{},
	}
	for _, k := range kinds {
		linear[k.typeURL] = cache.NewLinearCache(k.typeURL)
		mux.Caches[k.typeURL] = linear[k.typeURL]
	}
	return &driven{mux, func(_ *snapshot, resources map[resource.Type][]types.Resource) error {
		for _, k := range kinds {
			changed, gone := difference(linear[k.typeURL].GetResources(), resources[k.typeURL])
			if err := linear[k.typeURL].UpdateResources(changed, gone); err != nil {
				return err
			}
		}
		return nil
	}}
}

func difference(have map[string]types.Resource, want []types.Resource) (map[string]types.Resource, []string) {
	changed, named := map[string]types.Resource{}, cache.IndexRawResourcesByName(want)
	for name, r := range named {
		if old, ok := have[name]; !ok || !proto.Equal(old, r) {
			changed[name] = r
		}
	}
	var gone []string
	for name := range have {
		if _, ok := named[name]; !ok {
			gone = append(gone, name)
		}
	}
	return changed, gone
}
