/** The page is built without a server: everything happens in the browser or the window. */
export const ssr = false;
export const prerender = false;
