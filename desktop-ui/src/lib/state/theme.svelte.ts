/** Light, dark, or what the system says; remembered between visits. `static/theme.js` applies it before the first paint. */

export type Theme = 'system' | 'light' | 'dark';

const KEY = 'lull.theme';

function stored(): Theme {
  let theme = document.documentElement.dataset['theme'];
  return theme === 'light' || theme === 'dark' ? theme : 'system';
}

class ThemeStore {
  choice = $state<Theme>(stored());
  #system = matchMedia('(prefers-color-scheme: dark)');
  #systemDark = $state(false);

  constructor() {
    this.#systemDark = this.#system.matches;
    this.#system.addEventListener('change', ({ matches }) => {
      this.#systemDark = matches;
    });
  }

  get dark(): boolean {
    return this.choice === 'system' ? this.#systemDark : this.choice === 'dark';
  }

  set(choice: Theme): void {
    this.choice = choice;
    let { dataset } = document.documentElement;
    if (choice === 'system') delete dataset['theme'];
    else dataset['theme'] = choice;
    try {
      if (choice === 'system') localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, choice);
    } catch {
      // Storage is switched off: the choice lasts as long as the page.
    }
  }
}

export const theme = new ThemeStore();
