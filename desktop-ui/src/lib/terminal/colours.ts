/** The terminal's colours, taken from the page's own so that both themes fit. */
import type { ITheme } from '@xterm/xterm';

export function screenColours(element: Element): ITheme {
  let style = getComputedStyle(element);
  let colour = (name: string) => style.getPropertyValue(name).trim();
  let ink = colour('--screen-ink');
  let quiet = colour('--screen-quiet');
  return {
    background: colour('--screen'),
    foreground: ink,
    cursor: colour('--screen'),
    selectionBackground: colour('--screen-selection'),
    selectionForeground: ink,
    black: colour('--ansi-black'),
    red: colour('--ansi-red'),
    green: colour('--ansi-green'),
    yellow: colour('--ansi-yellow'),
    blue: colour('--ansi-blue'),
    magenta: colour('--ansi-magenta'),
    cyan: colour('--ansi-cyan'),
    white: colour('--ansi-white'),
    brightBlack: quiet,
    brightRed: colour('--ansi-red'),
    brightGreen: colour('--ansi-green'),
    brightYellow: colour('--ansi-yellow'),
    brightBlue: colour('--ansi-blue'),
    brightMagenta: colour('--ansi-magenta'),
    brightCyan: colour('--ansi-cyan'),
    brightWhite: ink,
    scrollbarSliderBackground: `${colour('--line-strong')}55`,
    scrollbarSliderHoverBackground: `${colour('--line-strong')}88`,
    scrollbarSliderActiveBackground: `${colour('--line-strong')}aa`,
    overviewRulerBorder: colour('--screen'),
  };
}
