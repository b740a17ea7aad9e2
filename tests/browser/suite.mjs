// Every scenario, one after the other in one process: they share one server and one process of each browser, and two
// calls at a time would only measure the machine. Run with `node --test suite.mjs`, after `npm ci`.

import './calls/instrument.mjs';
import './calls/readme.mjs';
import './calls/replaced.mjs';
import './calls/codecs.mjs';
import './calls/group.mjs';
import './calls/start.mjs';
import './calls/layers.mjs';
import './calls/adaptive.mjs';
import './calls/network.mjs';
import './calls/quality.mjs';
import './calls/sdp.mjs';
import './calls/gstreamer.mjs';
import './calls/page.mjs';
import './calls/people.mjs';
import './calls/lost.mjs';
import './calls/keys.mjs';
import './calls/admin.mjs';
import './calls/sound.mjs';
import './calls/life.mjs';
import './calls/shards.mjs';
import './calls/firefox.mjs';
import './calls/stop.mjs';
