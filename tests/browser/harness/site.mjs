// Bundles the page and serves it on loopback, from another origin than the API, as a real application's page comes.

import { build } from 'esbuild';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const PAGE = new URL('../page/', import.meta.url);

export class Site {
  static async start() {
    const bundle = await build({
      entryPoints: [new URL('stage.mjs', PAGE).pathname],
      bundle: true, write: false, format: 'iife', platform: 'browser', logLevel: 'error',
      define: { global: 'globalThis' },
    });
    const files = {
      '/': ['text/html', readFileSync(new URL('index.html', PAGE))],
      '/stage.js': ['text/javascript', bundle.outputFiles[0].contents],
    };
    const server = createServer((request, response) => {
      const [type, body] = files[request.url] ?? ['text/plain', ''];
      response.writeHead(body ? 200 : 404, { 'content-type': type }).end(body);
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Site(server);
  }

  constructor(server) {
    this.server = server;
    this.url = `http://127.0.0.1:${server.address().port}/`;
  }

  async close() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}
