// The echo of `volo-thrift`.
namespace rs echo

struct Payload {
    1: required binary body,
}

service Echo {
    // Replies with the request's bytes.
    Payload echo(1: Payload request),
}
