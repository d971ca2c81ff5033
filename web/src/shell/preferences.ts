// What a person has chosen, kept in this browser.

export interface Preferences {
  theme: 'system' | 'light' | 'dark';
  language: 'en' | 'de';
  /** Whether shortcuts may be single letters. */
  singleKeys: boolean;
  /** Of the IANA database; null: this machine's. */
  timeZone: string | null;
  /** Of a week, 0 being Sunday; null: as it is where the person is. */
  firstDay: number | null;
}

const KEY = 'primetrade-preferences';
const listeners = new Set<() => void>();
let current = read();
show();

function read(): Preferences {
  const preferences: Preferences = {
    theme: 'system',
    language: navigator.language.startsWith('de') ? 'de' : 'en',
    singleKeys: true,
    timeZone: null,
    firstDay: null,
  };
  try {
    return { ...preferences, ...JSON.parse(localStorage.getItem(KEY) ?? '{}') };
  } catch {
    // storage may be forbidden, or hold what an older version wrote
    return preferences;
  }
}

function show() {
  const { theme, language } = current;
  document.documentElement.lang = language;
  document.documentElement.dataset['theme'] = theme;
}

export const preferences = {
  get: (): Preferences => current,
  set(change: Partial<Preferences>): void {
    current = { ...current, ...change };
    try {
      localStorage.setItem(KEY, JSON.stringify(current));
    } catch {
      // then it holds until the page is closed
    }
    show();
    for (const tell of listeners) tell();
  },
  onChange(tell: () => void): () => void {
    listeners.add(tell);
    return () => listeners.delete(tell);
  },
};

/** The other of light and dark. */
export function switchTheme(): void {
  const dark = current.theme === 'system' ? matchMedia('(prefers-color-scheme: dark)').matches : current.theme === 'dark';
  preferences.set({ theme: dark ? 'light' : 'dark' });
}
