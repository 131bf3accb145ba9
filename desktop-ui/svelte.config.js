/** One bundle without a server: the coordinator serves it, the desktop app embeds it. */
import adapter from '@sveltejs/adapter-static';
import { vitePreprocess } from '@sveltejs/vite-plugin-svelte';

/** @type {import('@sveltejs/kit').Config} */
export default {
  preprocess: vitePreprocess(),
  compilerOptions: { runes: true },
  kit: {
    adapter: adapter({ fallback: 'index.html' }),
    csp: {
      mode: 'hash',
      directives: {
        'default-src': ['none'],
        'script-src': ['self'],
        'worker-src': ['self'],
        // xterm.js writes its measurements into style elements.
        'style-src': ['self', 'unsafe-inline'],
        'img-src': ['self', 'data:'],
        'font-src': ['self'],
        // The last two are how the desktop window talks to its own app.
        'connect-src': ['self', 'ipc:', 'http://ipc.localhost'],
        'manifest-src': ['self'],
        'object-src': ['none'],
        'base-uri': ['none'],
        'form-action': ['none'],
      },
    },
    output: { bundleStrategy: 'split' },
    version: { pollInterval: 0 },
  },
};
