"""Bodies of WHIP and WHEP for schemathesis, which knows no SDP: the generated text as it is."""

import schemathesis


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def sdp(_context, value):
    return value if isinstance(value, bytes) else str(value).encode()
