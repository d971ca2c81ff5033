import { useState } from 'react';
import { useTexts } from '../texts/index.ts';
import { tagOf } from './tags.ts';
import styles from './tasks.module.css';

/** Of the API. */
const TAG_LENGTH_MAX = 50;

/** A tag to be added, with or without its `#`. */
export function TagInput({ add }: { add: (tag: string) => void }) {
  const t = useTexts();
  const [text, setText] = useState('');
  const finish = () => {
    const tag = tagOf(text.trim().replace(/^#/, ''));
    setText('');
    if (tag) add(tag);
  };
  return (
    <input
      className={styles.tagInput}
      aria-label={t.addTag}
      placeholder={t.addTag}
      value={text}
      maxLength={TAG_LENGTH_MAX}
      onChange={(event) => setText(event.target.value)}
      onKeyDown={(event) => event.key === 'Enter' && finish()}
    />
  );
}
