# The echo of `capnp-rpc`.
@0xbd5f8a2c3e94d107;

interface Echo {
  # Replies with the request's bytes.
  echo @0 (body :Data) -> (body :Data);
}
