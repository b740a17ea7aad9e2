// Starts real browsers without a screen and runs page functions in them: Chromium over the DevTools protocol, Firefox
// over WebDriver BiDi. Both are reduced to the same three verbs: `open(url)`, `page.call(name, ...arguments)`, `close()`.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import WebSocket from 'ws';

const START_MS = 60_000;
const CALL_MS = 60_000;
const CLICKS_MAX = 3;
/** Between two looks whether a page is there. */
const LOOK_MS = 20;

const CHROMIUM_FLAGS = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--mute-audio',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
  '--disable-background-timer-throttling', '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows', '--disable-features=WebRtcHideLocalIpsWithMdns',
  '--allow-loopback-in-peer-connection', '--autoplay-policy=no-user-gesture-required', '--remote-debugging-port=0',
];

const FIREFOX_PREFS = {
  'app.normandy.enabled': false,
  'app.update.disabledForTesting': true,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'dom.min_background_timeout_value': 4,
  'dom.timeout.enable_budget_timer_throttling': false,
  'media.autoplay.blocking_policy': 0,
  'media.autoplay.default': 0,
  'media.gmp-manager.updateEnabled': false,
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  // A page without a camera uses the address of the default route only, which never reaches a server on loopback. Pages
  // that may use one, as a page that calls may, use every address.
  'permissions.default.camera': 1,
  'permissions.default.microphone': 1,
  'remote.prefs.recommended': true,
  'toolkit.telemetry.enabled': false,
  'widget.windows.window_occlusion_tracking.enabled': false,
};

/** The first of the usual places that holds the program; `undefined` where it is not installed. */
function program(variable, names) {
  const places = [process.env[variable], ...names.map((name) => `/usr/bin/${name}`)];
  return places.find((place) => place && existsSync(place));
}

export const chromiumPath = program('RINGCAST_CHROMIUM', ['chromium', 'google-chrome', 'chromium-browser']);
export const firefoxPath = program('RINGCAST_FIREFOX', ['firefox-esr', 'firefox']);

/** A request/response conversation over one WebSocket, as both protocols have it. */
class Wire {
  #socket;
  #waiting = new Map();
  #next = 1;
  #listen;

  static async open(url, listen) {
    const socket = new WebSocket(url, { maxPayload: 64 * 1024 * 1024 });
    await new Promise((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
    });
    return new Wire(socket, listen);
  }

  constructor(socket, listen) {
    this.#socket = socket;
    this.#listen = listen;
    socket.on('message', (text) => this.#handleMessage(JSON.parse(text)));
    socket.on('close', () => this.#fail(new Error('the browser closed its control connection')));
    socket.on('error', (error) => this.#fail(error));
  }

  send(method, params = {}, extra = {}) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => this.#settle(id, new Error(`${method}: no answer in ${CALL_MS} ms`)), CALL_MS);
      this.#waiting.set(id, { resolve, reject, late });
      this.#socket.send(JSON.stringify({ id, method, params, ...extra }));
    });
  }

  close() {
    this.#socket.close();
  }

  #handleMessage(message) {
    if (message.id === undefined || message.id === null) return this.#listen?.(message);
    const refused = message.type === 'error' ? message.message : message.error?.message;
    return this.#settle(message.id, refused === undefined ? undefined : new Error(refused), message.result);
  }

  #settle(id, error, result) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.late);
    if (error) waiting.reject(error);
    else waiting.resolve(result);
  }

  #fail(error) {
    for (const id of [...this.#waiting.keys()]) this.#settle(id, error);
  }
}

/** The running program, its profile folder, and the address it prints on standard error. */
class Program {
  static async start(file, flags, announced) {
    const folder = mkdtempSync(path.join(tmpdir(), 'ringcast-browser-'));
    const child = spawn(file, flags(folder), { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, HOME: folder } });
    const started = new Program(child, folder);
    try {
      started.url = await started.#announcement(announced);
    } catch (error) {
      await started.stop();
      throw error;
    }
    return started;
  }

  constructor(child, folder) {
    this.child = child;
    this.folder = folder;
    this.ended = new Promise((resolve) => child.once('exit', resolve));
  }

  get running() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  #announcement(pattern) {
    let text = '';
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`the browser did not start:\n${text}`)), START_MS);
      this.child.once('error', reject);
      this.child.once('exit', (code) => reject(new Error(`the browser ended with ${code}:\n${text}`)));
      this.child.stderr.on('data', (chunk) => {
        if (text.length < 65_536) text += chunk;
        const found = pattern.exec(text);
        if (!found) return;
        clearTimeout(late);
        resolve(found[1]);
      });
    });
  }

  async stop() {
    const kill = setTimeout(() => this.child.kill('SIGKILL'), 5_000);
    if (this.running) {
      this.child.kill('SIGTERM');
      await this.ended;
    }
    clearTimeout(kill);
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
}

/** What runs in the page: one entry of `window.stage`, with arguments and result as JSON. */
const CALL = `async (name, json) => {
  const result = await window.stage[name](...JSON.parse(json));
  return JSON.stringify(result === undefined ? null : result);
}`;

class ChromiumPage {
  constructor(wire, targetId, contextId, sessionId) {
    Object.assign(this, { wire, targetId, contextId, sessionId });
  }

  async call(name, ...values) {
    const expression = `(${CALL})(${JSON.stringify(name)}, ${JSON.stringify(JSON.stringify(values))})`;
    const answer = await this.#send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    const thrown = answer.exceptionDetails;
    if (thrown) throw new Error(`${name}: ${thrown.exception?.description ?? thrown.text}`);
    return JSON.parse(answer.result.value);
  }

  /** Waits until the page has put its `stage` on the window. */
  async ready() {
    const expression = `new Promise((resolve) => {
      const look = () => (window.stage ? resolve(true) : setTimeout(look, 20));
      look();
    })`;
    await this.#send('Runtime.evaluate', { expression, awaitPromise: true });
  }

  /** The value of an expression in the page; promises are awaited. */
  async evaluate(expression) {
    const options = { expression, awaitPromise: true, returnByValue: true, userGesture: true };
    const { result, exceptionDetails: thrown } = await this.#send('Runtime.evaluate', options);
    if (thrown) throw new Error(`${expression}: ${thrown.exception?.description ?? thrown.text}`);
    return result.value;
  }

  /** Clicks in the middle of an element, as a hand does: once more where the page has moved it meanwhile. */
  async click(selector) {
    for (let hand = 0; hand < CLICKS_MAX; hand += 1) {
      const [x, y] = await this.evaluate(`(() => {
        const found = document.querySelector(${JSON.stringify(selector)});
        window.clicked = false;
        found.addEventListener('click', () => { window.clicked = true; }, { capture: true, once: true });
        found.scrollIntoView({ block: 'nearest' });
        const { x, y, width, height } = found.getBoundingClientRect();
        return [x + width / 2, y + height / 2];
      })()`);
      for (const type of ['mousePressed', 'mouseReleased']) {
        await this.#send('Input.dispatchMouseEvent', { type, x, y, button: 'left', clickCount: 1 });
      }
      if (await this.evaluate('window.clicked')) return;
    }
    throw new Error(`${selector} was not there to be clicked`);
  }

  async type(text) {
    await this.#send('Input.insertText', { text });
  }

  async press(key, code = `Key${key.toUpperCase()}`) {
    const text = key.length === 1 ? { text: key } : {};
    const windowsVirtualKeyCode = { Tab: 9, Enter: 13, Escape: 27 }[key] ?? key.toUpperCase().charCodeAt(0);
    const enter = key === 'Enter' ? { text: '\r' } : {};
    const event = { key, code, windowsVirtualKeyCode, ...text, ...enter };
    await this.#send('Input.dispatchKeyEvent', { type: 'keyDown', ...event });
    await this.#send('Input.dispatchKeyEvent', { type: 'keyUp', key, code, windowsVirtualKeyCode });
  }

  /** As on a device of that size, in light or dark. */
  async look({ width, height, mobile = false, dark = false }) {
    await this.#send('Emulation.setDeviceMetricsOverride', { width, height, mobile, deviceScaleFactor: 1 });
    const features = [
      { name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' },
      // A picture is taken of what is there, not of the way to it.
      { name: 'prefers-reduced-motion', value: 'reduce' },
    ];
    await this.#send('Emulation.setEmulatedMedia', { features });
  }

  /** What it looks like, as PNG. */
  async screenshot() {
    const { data } = await this.#send('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(data, 'base64');
  }

  /** Role and name of everything that assistive technology is told of. */
  async accessible() {
    const { nodes } = await this.#send('Accessibility.getFullAXTree', {});
    const told = nodes.filter(({ ignored }) => !ignored);
    return told.map(({ role, name }) => ({ role: role?.value, name: name?.value ?? '' }));
  }

  async close() {
    await this.wire.send('Target.closeTarget', { targetId: this.targetId });
    await this.wire.send('Target.disposeBrowserContext', { browserContextId: this.contextId });
  }

  #send(method, params) {
    return this.wire.send(method, params, { sessionId: this.sessionId });
  }
}

export class Chromium {
  static async start(extraFlags = []) {
    const flags = (folder) => [...CHROMIUM_FLAGS, ...extraFlags, `--user-data-dir=${folder}`, 'about:blank'];
    const program = await Program.start(chromiumPath, flags, /DevTools listening on (ws:\S+)/);
    return new Chromium(program, await Wire.open(program.url));
  }

  constructor(program, wire) {
    this.name = 'Chromium';
    this.program = program;
    this.wire = wire;
  }

  get running() {
    return this.program.running;
  }

  /** A page in a window of its own, which shares nothing with others and counts as visible. */
  async open(url) {
    const page = await this.visit(url);
    await page.ready();
    return page;
  }

  /** The same for any page, whether or not it is made for tests; `before` runs in it first. */
  async visit(url, { before = '' } = {}) {
    const { browserContextId } = await this.wire.send('Target.createBrowserContext');
    const window = { url: 'about:blank', browserContextId, newWindow: true, width: 640, height: 480 };
    const { targetId } = await this.wire.send('Target.createTarget', window);
    const { sessionId } = await this.wire.send('Target.attachToTarget', { targetId, flatten: true });
    await this.wire.send('Page.enable', {}, { sessionId });
    await this.wire.send('Page.addScriptToEvaluateOnNewDocument', { source: before }, { sessionId });
    const { errorText } = await this.wire.send('Page.navigate', { url }, { sessionId });
    if (errorText) throw new Error(`${url}: ${errorText}`);
    await this.#loaded(sessionId);
    return new ChromiumPage(this.wire, targetId, browserContextId, sessionId);
  }

  /** Waits for the whole document: what a test looks for first may be its last element. */
  async #loaded(sessionId) {
    const expression = "location.href !== 'about:blank' && document.readyState === 'complete'";
    for (;;) {
      const { result } = await this.wire.send('Runtime.evaluate', { expression, returnByValue: true }, { sessionId });
      if (result.value) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  async close() {
    this.wire.close();
    await this.program.stop();
  }
}

class FirefoxPage {
  constructor(wire, context) {
    Object.assign(this, { wire, context });
  }

  async call(name, ...values) {
    const answer = await this.wire.send('script.callFunction', {
      functionDeclaration: CALL,
      awaitPromise: true,
      target: { context: this.context },
      arguments: [{ type: 'string', value: name }, { type: 'string', value: JSON.stringify(values) }],
    });
    if (answer.type === 'exception') throw new Error(`${name}: ${answer.exceptionDetails.text}`);
    return JSON.parse(answer.result.value);
  }

  /** The value of an expression in the page; promises are awaited. */
  async evaluate(expression) {
    const answer = await this.wire.send('script.evaluate', {
      expression: `(async () => JSON.stringify(await (${expression}) ?? null))()`,
      awaitPromise: true,
      userActivation: true,
      target: { context: this.context },
    });
    if (answer.type === 'exception') throw new Error(`${expression}: ${answer.exceptionDetails.text}`);
    return JSON.parse(answer.result.value);
  }

  async close() {
    await this.wire.send('browsingContext.close', { context: this.context });
  }
}

export class Firefox {
  static async start(extraPrefs = {}) {
    const flags = (folder) => {
      const lines = Object.entries({ ...FIREFOX_PREFS, ...extraPrefs }).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});`);
      writeFileSync(path.join(folder, 'user.js'), `${lines.join('\n')}\n`);
      return ['--headless', '--no-remote', '--remote-debugging-port', '0', '--profile', folder, 'about:blank'];
    };
    const program = await Program.start(firefoxPath, flags, /WebDriver BiDi listening on (ws:\S+)/);
    const wire = await Wire.open(`${program.url}/session`);
    await wire.send('session.new', { capabilities: {} });
    return new Firefox(program, wire);
  }

  constructor(program, wire) {
    this.name = 'Firefox';
    this.program = program;
    this.wire = wire;
  }

  get running() {
    return this.program.running;
  }

  async open(url) {
    const { context } = await this.wire.send('browsingContext.create', { type: 'window' });
    await this.wire.send('browsingContext.navigate', { context, url, wait: 'complete' });
    return new FirefoxPage(this.wire, context);
  }

  async close() {
    this.wire.close();
    await this.program.stop();
  }
}
