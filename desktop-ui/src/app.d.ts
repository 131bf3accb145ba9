/** Types that SvelteKit looks for. */
declare global {
  namespace App {
    interface PageState {}
  }
}

export {};
