import { useSyncExternalStore } from 'react';
import { preferences } from '../shell/preferences.ts';
import { de } from './de.ts';
import { en, type Texts } from './en.ts';

export const LANGUAGES = { en, de };
export type { Texts };
export type Language = keyof typeof LANGUAGES;

/** In the language of now. */
export function texts(): Texts {
  return LANGUAGES[preferences.get().language];
}

/** The same for components: they are drawn again when it changes. */
export function useTexts(): Texts {
  return LANGUAGES[useSyncExternalStore(preferences.onChange, preferences.get).language];
}

/** Of texts that only one page needs, and that come with it. */
export function useTextsOf<T>(texts: Record<Language, T>): T {
  return texts[useSyncExternalStore(preferences.onChange, preferences.get).language];
}
