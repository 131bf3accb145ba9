/** Builds the page; `npm run dev` passes requests for the API on to a local coordinator. */
import { sveltekit } from '@sveltejs/kit/vite';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [sveltekit()],
  worker: { format: 'es' },
  server: { proxy: { '/api': process.env['LULL_HTTP_URL'] ?? 'http://127.0.0.1:7701' } },
  test: {
    include: ['src/**/*.test.ts'],
    environment: 'node',
  },
  // Components are tested as they run in the page, not as a server would render them.
  resolve: process.env['VITEST'] ? { conditions: ['browser'] } : {},
});
