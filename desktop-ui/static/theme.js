/** Puts the remembered theme on the page before it is painted, so that it does not flash. */
try {
  let theme = localStorage.getItem('lull.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is switched off: the system's theme applies.
}
