/** Types that SvelteKit looks for: this page adds none. */
export {};
