"""A WHIP publisher or a WHEP viewer made of GStreamer's webrtcbin: a client that shares no code with any browser.

gstreamer.py publish URL SOURCE CODEC    sends numbered pictures (as page/picture.mjs draws them) and the tone of SOURCE
gstreamer.py play URL KIND=CODEC…        receives, reads the pictures and measures the pitch

Tells on standard output, a JSON object a line: {"answer": {…}} and {"connected": true} once, then {"picture": {…}} and
{"pitch": Hz}, or {"damaged": true}. Ends its session with DELETE when its standard input ends.
"""

import json
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

WIDTH, HEIGHT, FPS = 320, 240, 15
COLUMNS, ROWS, CELLS_SHARE = 8, 4, 0.8
SAMPLES_A_SECOND = 48_000
REQUEST_SECONDS = 10
PAYLOADS = {"VP8": 96, "H264": 102, "OPUS": 111}
ENCODERS = {
    "VP8": "vp8enc deadline=1 cpu-used=8 target-bitrate=500000 keyframe-max-dist=60 ! rtpvp8pay picture-id-mode=15-bit",
    "H264": "openh264enc bitrate=500000 gop-size=60 ! video/x-h264,profile=constrained-baseline ! h264parse"
    " ! rtph264pay aggregate-mode=zero-latency config-interval=-1",
}

PICTURE = "videoconvert ! video/x-raw,format=GRAY8"
DECODERS = {
    "VP8": f"rtpvp8depay ! vp8dec ! {PICTURE}",
    "H264": f"rtph264depay ! h264parse ! openh264dec ! {PICTURE}",
    "OPUS": "rtpopusdepay ! opusdec ! audioconvert ! audioresample"
    f" ! audio/x-raw,format=S16LE,channels=1,rate={SAMPLES_A_SECOND}",
}

told = threading.Lock()


def tell(**fields):
    with told:
        print(json.dumps(fields), flush=True)


def checksum(source, counter):
    crc = 0x5A
    for byte in (source, counter >> 8, counter & 0xFF):
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x07) & 0xFF if crc & 0x80 else (crc << 1) & 0xFF
    return crc


def draw(source, counter):
    """A picture of 8 bits a pixel; page/picture.mjs tells what is in it."""
    counter &= 0xFFFF
    word = source << 24 | counter << 8 | checksum(source, counter)
    cell_width, cells = WIDTH // COLUMNS, int(HEIGHT * CELLS_SHARE)
    rows = []
    for row in range(ROWS):
        bits = [word >> (31 - row * COLUMNS - column) & 1 for column in range(COLUMNS)]
        line = b"".join((b"\xeb" if bit else b"\x10") * cell_width for bit in bits)
        rows.append(line * (cells // ROWS))
    return b"".join(rows) + b"\x77" * (WIDTH * (HEIGHT - cells))


def read(pixels, width, height, stride):
    word = 0
    for index in range(COLUMNS * ROWS):
        column, row = index % COLUMNS, index // COLUMNS
        x = int((column + 0.5) * width / COLUMNS)
        y = int((row + 0.5) * height * CELLS_SHARE / ROWS)
        word = word << 1 | (pixels[y * stride + x] > 127)
    source, counter = word >> 24, word >> 8 & 0xFFFF
    return {"source": source, "counter": counter} if checksum(source, counter) == word & 0xFF else None


def request(method, url, body=None, headers=()):
    asked = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
    return urllib.request.urlopen(asked, timeout=REQUEST_SECONDS)


class Session:
    """One webrtcbin that offers once, with all its candidates in the offer."""

    def __init__(self, url, pipeline):
        self.url = url
        self.location = None
        self.loop = GLib.MainLoop()
        self.pipeline = pipeline
        self.peer = pipeline.get_by_name("peer")
        self.peer.connect("notify::ice-gathering-state", self.gathered)
        self.peer.connect("notify::connection-state", self.changed)
        self.offered = False
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.failed)

    def failed(self, _bus, message):
        error, detail = message.parse_error()
        tell(failure=f"{error.message}: {detail}")
        self.loop.quit()

    def offer(self, *_):
        self.peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self.offer_made))

    def offer_made(self, promise):
        # The offer lives in the reply, and no longer than the reply does.
        reply = promise.get_reply()
        self.peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def gathered(self, *_):
        complete = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        if not self.offered and self.peer.get_property("ice-gathering-state") == complete:
            self.offered = True
            threading.Thread(target=self.exchange, daemon=True).start()

    def changed(self, *_):
        if self.peer.get_property("connection-state") == GstWebRTC.WebRTCPeerConnectionState.CONNECTED:
            tell(connected=True)

    def exchange(self):
        text = self.peer.get_property("local-description").sdp.as_text()
        try:
            with request("POST", self.url, text.encode(), {"content-type": "application/sdp"}) as answer:
                self.location = urllib.parse.urljoin(self.url, answer.headers["location"])
                tell(answer={"status": answer.status, "etag": answer.headers["etag"]})
                told_back = answer.read().decode()
        except urllib.error.HTTPError as error:
            tell(failure=f"{error.code}: {error.read().decode()}")
            self.loop.quit()
            return
        _, message = GstSdp.SDPMessage.new_from_text(told_back)
        kind = GstWebRTC.WebRTCSDPType.ANSWER
        answer = GstWebRTC.WebRTCSessionDescription.new(kind, message)
        self.peer.emit("set-remote-description", answer, Gst.Promise.new())

    def run(self):
        threading.Thread(target=self.until_input_ends, daemon=True).start()
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        if self.location:
            request("DELETE", self.location).close()
        self.pipeline.set_state(Gst.State.NULL)

    def until_input_ends(self):
        sys.stdin.read()
        self.loop.quit()


def rtp(kind, codec):
    rate = 48_000 if kind == "audio" else 90_000
    more = ",encoding-params=(string)2" if codec == "OPUS" else ""
    return f"application/x-rtp,media={kind},encoding-name={codec},payload={PAYLOADS[codec]},clock-rate={rate}{more}"


class Publisher(Session):
    def __init__(self, url, source, codec):
        picture = f"video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT},framerate={FPS}/1"
        pipeline = (
            "webrtcbin name=peer bundle-policy=max-bundle"
            f" appsrc name=camera is-live=true do-timestamp=true format=time caps={picture}"
            f" ! queue leaky=downstream max-size-buffers=2 ! videoconvert ! video/x-raw,format=I420"
            f" ! {ENCODERS[codec]} ! {rtp('video', codec)} ! peer."
            f" audiotestsrc is-live=true freq={400 + source * 200} ! audioconvert"
            f" ! audio/x-raw,channels=2,rate={SAMPLES_A_SECOND} ! opusenc ! rtpopuspay ! {rtp('audio', 'OPUS')} ! peer."
        )
        super().__init__(url, Gst.parse_launch(pipeline))
        self.source = source
        for index in range(2):
            line = self.peer.emit("get-transceiver", index)
            line.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
        self.peer.connect("on-negotiation-needed", self.offer)
        threading.Thread(target=self.film, daemon=True).start()

    def film(self):
        camera, counter, due = self.pipeline.get_by_name("camera"), 0, time.monotonic()
        while True:
            camera.emit("push-buffer", Gst.Buffer.new_wrapped(draw(self.source, counter)))
            counter, due = counter + 1, due + 1 / FPS
            time.sleep(max(0, due - time.monotonic()))


class Viewer(Session):
    def __init__(self, url, lines):
        pipeline = Gst.Pipeline()
        pipeline.add(Gst.parse_launch("webrtcbin name=peer bundle-policy=max-bundle"))
        super().__init__(url, pipeline)
        self.peer.connect("pad-added", self.stream)
        self.crossings = self.samples = self.last = 0
        direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        for kind, codec in lines:
            self.peer.emit("add-transceiver", direction, Gst.Caps.from_string(rtp(kind, codec)))
        self.peer.connect("on-negotiation-needed", self.offer)

    def stream(self, _peer, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        codec = pad.get_current_caps().get_structure(0).get_string("encoding-name")
        seen = self.sound if codec == "OPUS" else self.picture
        sink = f"queue ! {DECODERS[codec]} ! appsink name=sink emit-signals=true sync=false"
        branch = Gst.parse_bin_from_description(sink, True)
        branch.get_by_name("sink").connect("new-sample", seen)
        self.pipeline.add(branch)
        branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))

    def picture(self, sink):
        sample = sink.emit("pull-sample")
        shape = sample.get_caps().get_structure(0)
        width, height = shape.get_value("width"), shape.get_value("height")
        buffer = sample.get_buffer()
        pixels = buffer.extract_dup(0, buffer.get_size())
        stamp = read(pixels, width, height, len(pixels) // height)
        if stamp:
            tell(picture={**stamp, "width": width, "height": height, "at": round(time.time() * 1000)})
        else:
            tell(damaged=True)
        return Gst.FlowReturn.OK

    def sound(self, sink):
        buffer = sink.emit("pull-sample").get_buffer()
        for sample in memoryview(buffer.extract_dup(0, buffer.get_size())).cast("h"):
            self.crossings += self.last < 0 <= sample
            self.last = sample
            self.samples += 1
            if self.samples == SAMPLES_A_SECOND // 4:
                tell(pitch=self.crossings * 4)
                self.crossings = self.samples = 0
        return Gst.FlowReturn.OK


def main():
    Gst.init(None)
    match sys.argv[1:]:
        case ["publish", url, source, codec]:
            Publisher(url, int(source), codec).run()
        case ["play", url, *lines]:
            Viewer(url, [line.split("=") for line in lines]).run()
        case _:
            sys.exit(__doc__)


main()
