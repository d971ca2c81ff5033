import { Menu } from '@base-ui/react/menu';
import { useQuery } from '@tanstack/react-query';
import { Check, History, ListFilter, Search, X } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import { facetsQuery } from '../api/queries.ts';
import { useActions } from '../shell/shortcuts.ts';
import { useTexts } from '../texts/index.ts';
import { DueRange } from './DueRange.tsx';
import { filterOf, SORT_DEFAULT, SORTS, toggled, type View } from './filter.ts';
import styles from './tasks.module.css';
import { PRIORITIES, STATUSES } from './values.ts';

interface Properties {
  view: View;
  /** What the page itself decides: no choice of it. */
  without?: readonly ('status' | 'overdue' | 'due' | 'sort')[];
  sortDefault?: string;
  change: (change: Partial<View>) => void;
}

/** Search, filters with how many each would find, order. */
export function ViewBar({ view, without = [], sortDefault = SORT_DEFAULT, change }: Properties) {
  const t = useTexts();
  const { data: facets } = useQuery(facetsQuery(view));
  const { q: _, ...filter } = filterOf(view);
  const filtered = Object.keys(filter).length > 0;
  return (
    <div className={styles.bar}>
      <SearchBox q={view.q ?? ''} change={(q) => change({ q: q || undefined })} />
      <div className={styles.filters}>
        {!without.includes('status') && (
          <FilterMenu
            name={t.status}
            chosen={view.status}
            values={STATUSES.map((value) => ({ value, text: t.statuses[value]!, count: facets?.by_status[value] }))}
            change={(status) => change({ status })}
          />
        )}
        <FilterMenu
          name={t.priority}
          chosen={view.priority}
          values={PRIORITIES.map((value) => ({ value, text: t.priorities[value]!, count: facets?.by_priority[value] }))}
          change={(priority) => change({ priority })}
        />
        <FilterMenu
          name={t.tags}
          chosen={view.tag}
          values={(facets?.by_tag ?? []).map(({ tag, count }) => ({ value: tag, text: tag, count }))}
          change={(tag) => change({ tag })}
        />
        {!without.includes('overdue') && (
          <button
            type="button"
            className={styles.filter}
            aria-pressed={view.overdue === 'true'}
            onClick={() => change({ overdue: view.overdue ? undefined : 'true' })}
          >
            {t.overdue}
            {facets && <span className={styles.count}>{facets.by_due.overdue}</span>}
          </button>
        )}
        {!without.includes('due') && <DueRange due={view} soon={facets?.by_due.next_24_hours} change={change} />}
        {filtered && (
          <button
            type="button"
            className={styles.quiet}
            onClick={() => change(Object.fromEntries(Object.keys(filter).map((name) => [name, undefined])))}
          >
            {t.clearFilters}
          </button>
        )}
      </div>
      {!without.includes('sort') && !view.as_of && (
        <button type="button" className={styles.filter} onClick={() => change({ as_of: new Date().toISOString() })}>
          <History size={14} aria-hidden />
          <span className={styles.wide}>{t.timeTravel}</span>
        </button>
      )}
      {!without.includes('sort') && (
        <label className={styles.sort}>
          <span className={styles.hidden}>{t.sort}</span>
          <select value={view.sort ?? sortDefault} onChange={(event) => change({ sort: event.target.value })}>
            {SORTS.map((sort) => (
              <option key={sort} value={sort}>
                {t.sorts[sort]}
              </option>
            ))}
          </select>
        </label>
      )}
    </div>
  );
}

/** After the last letter, in milliseconds. */
const SEARCH_AFTER_MS = 200;

function SearchBox({ q, change }: { q: string; change: (q: string) => void }) {
  const t = useTexts();
  const [text, setText] = useState(q);
  const input = useRef<HTMLInputElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useActions([{ id: 'search', keys: '/', run: () => input.current?.focus() }]);
  // the address has changed by itself: back, or a link
  useEffect(() => setText(q), [q]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const search = (next: string, afterMs: number) => {
    setText(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => change(next), afterMs);
  };
  return (
    <div className={styles.search} role="search">
      <Search size={16} aria-hidden />
      <input
        ref={input}
        type="text"
        aria-label={t.search}
        placeholder={t.search}
        value={text}
        maxLength={200}
        autoComplete="off"
        onChange={(event) => search(event.target.value, SEARCH_AFTER_MS)}
        onKeyDown={(event) => event.key === 'Escape' && (text ? search('', 0) : input.current?.blur())}
      />
      {text !== '' && (
        <button type="button" className={styles.icon} aria-label={t.clearFilters} onClick={() => search('', 0)}>
          <X size={16} aria-hidden />
        </button>
      )}
    </div>
  );
}

interface FilterMenuProperties {
  name: string;
  /** A comma list. */
  chosen: string | undefined;
  values: { value: string; text: string; count: number | undefined }[];
  change: (chosen: string | undefined) => void;
}

function FilterMenu({ name, chosen, values, change }: FilterMenuProperties) {
  const picked = chosen?.split(',') ?? [];
  // what is chosen stays visible, though nothing may match it
  const missing = picked.filter((value) => !values.some((known) => known.value === value));
  const all = [...missing.map((value) => ({ value, text: value, count: 0 })), ...values];
  const shown = all.filter(({ value }) => picked.includes(value)).map(({ text }) => text);
  return (
    <Menu.Root modal={false}>
      <Menu.Trigger className={styles.filter} data-chosen={shown.length > 0 || undefined}>
        <ListFilter size={14} aria-hidden />
        {shown.length > 0 ? `${name}: ${shown.join(', ')}` : name}
      </Menu.Trigger>
      <Menu.Portal>
        <Menu.Positioner sideOffset={4} align="start" className={styles.positioner}>
          <Menu.Popup className={styles.menu}>
            {all.length === 0 && <p className={styles.menuEmpty}>–</p>}
            {all.map(({ value, text, count }) => (
              <Menu.CheckboxItem
                key={value}
                className={styles.menuItem}
                checked={picked.includes(value)}
                closeOnClick={false}
                onCheckedChange={() => change(toggled(chosen, value))}
              >
                <span className={styles.tick}>
                  <Menu.CheckboxItemIndicator>
                    <Check size={14} aria-hidden />
                  </Menu.CheckboxItemIndicator>
                </span>
                <span className={styles.menuText}>{text}</span>
                <span className={styles.count}>{count}</span>
              </Menu.CheckboxItem>
            ))}
          </Menu.Popup>
        </Menu.Positioner>
      </Menu.Portal>
    </Menu.Root>
  );
}
