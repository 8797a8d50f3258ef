"""istio.workload.Workload, as far as tests fill it: its proto file comes with no package."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from support import ads_server

WORKLOAD = ads_server.PREFIX + "istio.workload.Workload"
STRINGS = {"uid": 20, "name": 1, "namespace": 2, "trust_domain": 6, "service_account": 7, "canonical_name": 10,
           "canonical_revision": 11, "workload_name": 13, "cluster_id": 18}
ADDRESSES, WORKLOAD_TYPE = 3, 12
DEPLOYMENT, CRONJOB, POD, JOB = range(4)


def message_class():
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="tests/workload.proto", package="istio.workload", syntax="proto3")
    message = file.message_type.add(name="Workload")
    for name, number in STRINGS.items():
        message.field.add(name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message.field.add(name="addresses", number=ADDRESSES, type=field.TYPE_BYTES, label=field.LABEL_REPEATED)
    message.field.add(name="workload_type", number=WORKLOAD_TYPE, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("istio.workload.Workload"))


Workload = message_class()
ads_server.MESSAGES[WORKLOAD] = Workload
ads_server.FULL_STATE.add(WORKLOAD)
