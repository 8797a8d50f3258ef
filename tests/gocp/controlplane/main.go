// A control plane on go-control-plane's own caches and servers, driven by a test: each line of standard input is one
// snapshot as JSON, each line of standard output one event. It ends with its standard input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	secretservice "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

const maxLine = 64 << 20

// event is what is told on standard output; fields that say nothing are left out.
type event struct {
	Event    string `json:"event"`
	GRPC     int    `json:"grpc,omitempty"`
	REST     int    `json:"rest,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Type     string `json:"type,omitempty"`
	Version  string `json:"version,omitempty"`
	Error    string `json:"error,omitempty"`
}

var output struct {
	sync.Mutex
	*json.Encoder
}

func tell(e event) {
	output.Lock()
	defer output.Unlock()
	if output.Encode(e) != nil {
		os.Exit(1) // nobody listens any more
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// request tells of a subscription, an acknowledgement or a rejection.
func request(protocol, typeURL, version, nonce string, problem interface{ GetMessage() string }, isRejected bool) {
	switch {
	case isRejected:
		tell(event{Event: "nack", Protocol: protocol, Type: typeURL, Error: problem.GetMessage()})
	case nonce != "":
		tell(event{Event: "ack", Protocol: protocol, Type: typeURL, Version: version})
	default:
		tell(event{Event: "subscribe", Protocol: protocol, Type: typeURL, Version: version})
	}
}

func callbacks() server.Callbacks {
	return server.CallbackFuncs{
		StreamOpenFunc: func(_ context.Context, _ int64, typeURL string) error {
			tell(event{Event: "open", Protocol: "sotw", Type: typeURL})
			return nil
		},
		DeltaStreamOpenFunc: func(_ context.Context, _ int64, typeURL string) error {
			tell(event{Event: "open", Protocol: "delta", Type: typeURL})
			return nil
		},
		StreamRequestFunc: func(_ int64, r *discovery.DiscoveryRequest) error {
			request("sotw", r.GetTypeUrl(), r.GetVersionInfo(), r.GetResponseNonce(), r.GetErrorDetail(), r.GetErrorDetail() != nil)
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, r *discovery.DeltaDiscoveryRequest) error {
			request("delta", r.GetTypeUrl(), "", r.GetResponseNonce(), r.GetErrorDetail(), r.GetErrorDetail() != nil)
			return nil
		},
		// A fetch has no nonce: that its version is the one of an earlier answer is the acknowledgement.
		FetchRequestFunc: func(_ context.Context, r *discovery.DiscoveryRequest) error {
			request("rest", r.GetTypeUrl(), r.GetVersionInfo(), r.GetVersionInfo(), r.GetErrorDetail(), r.GetErrorDetail() != nil)
			return nil
		},
	}
}

func register(g *grpc.Server, s server.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	clusterservice.RegisterClusterDiscoveryServiceServer(g, s)
	endpointservice.RegisterEndpointDiscoveryServiceServer(g, s)
	listenerservice.RegisterListenerDiscoveryServiceServer(g, s)
	routeservice.RegisterRouteDiscoveryServiceServer(g, s)
	secretservice.RegisterSecretDiscoveryServiceServer(g, s)
}

// gateway serves REST: go-control-plane's own handler returns what is to be written.
func gateway(s server.Server) http.Handler {
	g := server.HTTPGateway{Server: s}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, code, err := g.ServeHTTP(r)
		if err != nil {
			http.Error(w, err.Error(), code)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write(body)
	})
}

func listen() (net.Listener, int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	return l, l.Addr().(*net.TCPAddr).Port
}

func main() {
	kind := flag.String("cache", "snapshot", "snapshot or linear")
	ads := flag.Bool("ads", false, "the snapshot cache answers as an aggregated server does")
	node := flag.String("node", "test-node", "the client's node id")
	flag.Parse()
	output.Encoder = json.NewEncoder(os.Stdout)

	c, err := newCache(*kind, *ads, *node)
	if err != nil {
		fail(err)
	}
	s := server.NewServer(context.Background(), c, callbacks())
	g := grpc.NewServer()
	register(g, s)
	grpcListener, grpcPort := listen()
	restListener, restPort := listen()
	go func() { fail(g.Serve(grpcListener)) }()
	go func() { fail(http.Serve(restListener, gateway(s))) }()
	tell(event{Event: "listening", GRPC: grpcPort, REST: restPort})

	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		version, err := c.take(lines.Bytes())
		if err != nil {
			fail(err)
		}
		tell(event{Event: "set", Version: version})
	}
	if lines.Err() != nil {
		fail(lines.Err())
	}
}
