import { useEffect, useState } from 'react';
import { api, ask } from '../api/client.ts';
import { toast } from '../shell/toasts.ts';
import { again, problemText } from '../tasks/commands.ts';
import { uuid } from '../tasks/ids.ts';
import { useTextsOf } from '../texts/index.ts';
import { FIELDS, guess, type Field, type Mapping } from './csv.ts';
import { formatOf, look, toSend, type Format, type Preview } from './files.ts';
import styles from './jobs.module.css';
import { showJob } from './state.ts';
import { jobTexts } from './texts.ts';

const MEDIA_TYPES: Record<Format, string> = { csv: 'text/csv', ndjson: 'application/x-ndjson' };

/** A file is looked at, its columns are given their fields, it is checked, and imported. */
export function ImportForm() {
  const t = useTextsOf(jobTexts);
  // another form after an import: the same file is not sent twice by accident
  const [count, setCount] = useState(0);
  const [file, setFile] = useState<File | null>(null);
  const [format, setFormat] = useState<Format>('csv');
  const [preview, setPreview] = useState<Preview | null>(null);
  const [mapping, setMapping] = useState<Mapping>([]);
  const [busy, setBusy] = useState(false);

  useEffect(() => {
    let current = true;
    setPreview(null);
    if (file) {
      look(file, format).then(
        (preview) => {
          if (!current) return;
          setPreview(preview);
          setMapping(guess(preview.names));
        },
        (error: unknown) => toast({ text: problemText(error), failed: true }),
      );
    }
    return () => {
      current = false;
    };
  }, [file, format]);

  async function send(dryRun: boolean) {
    if (!file || !preview) return;
    setBusy(true);
    try {
      const body = await toSend(file, format, preview, mapping);
      const request = {
        params: { query: { format, dry_run: dryRun }, header: { 'Idempotency-Key': uuid() } },
        headers: { 'Content-Type': MEDIA_TYPES[format] },
        body,
        bodySerializer: (blob: unknown) => blob,
      };
      showJob(await again(() => ask(api.POST('/api/v1/imports', request as never))));
      toast({ text: t.started });
      if (dryRun) return;
      setFile(null);
      setCount(count + 1);
    } catch (error) {
      toast({ text: problemText(error), failed: true });
    } finally {
      setBusy(false);
    }
  }

  const lacks = !preview ? null : preview.rows.length === 0 ? t.emptyFile : format === 'csv' && !mapping.includes('title') ? t.noTitle : null;
  return (
    <section aria-label={t.import}>
      <h2>{t.import}</h2>
      <p className={styles.hint}>{t.importHint}</p>
      <div className={styles.inline}>
        <label>
          {t.file}
          <input
            key={count}
            type="file"
            accept=".csv,.tsv,.ndjson,.jsonl,text/csv,application/x-ndjson"
            onChange={({ target }) => {
              const chosen = target.files?.[0] ?? null;
              setFile(chosen);
              if (chosen) setFormat(formatOf(chosen));
            }}
          />
        </label>
        {file && (
          <label>
            {t.format}
            <select value={format} onChange={(event) => setFormat(event.target.value as Format)}>
              {Object.keys(MEDIA_TYPES).map((value) => (
                <option key={value} value={value}>
                  {t.formats[value]}
                </option>
              ))}
            </select>
          </label>
        )}
      </div>
      {preview && (
        <>
          <PreviewTable preview={preview} {...(format === 'csv' && { mapping, change: setMapping })} />
          {lacks && <p role="alert">{lacks}</p>}
          <div className={styles.inline}>
            <button type="button" disabled={busy || lacks !== null} onClick={() => void send(true)}>
              {t.check}
            </button>
            <button type="button" data-main disabled={busy || lacks !== null} onClick={() => void send(false)}>
              {t.import}
            </button>
            <small>{busy ? t.sending : t.checkHint}</small>
          </div>
        </>
      )}
    </section>
  );
}

interface PreviewProperties {
  preview: Preview;
  /** Of a table whose columns can be given other fields. */
  mapping?: Mapping;
  change?: (mapping: Mapping) => void;
}

function PreviewTable({ preview, mapping, change }: PreviewProperties) {
  const t = useTextsOf(jobTexts);
  // a field is one column's only
  const give = (column: number, field: Field | null) =>
    change?.(mapping!.map((other, index) => (index === column ? field : other === field ? null : other)));
  return (
    <div className={styles.preview} tabIndex={0} role="region" aria-label={t.preview}>
      <table>
        <caption>{t.preview}</caption>
        <thead>
          <tr>
            {preview.names.map((name, index) => (
              <th key={index} scope="col">
                <bdi>{name}</bdi>
                {mapping && (
                  <select
                    aria-label={t.column(name)}
                    value={mapping[index] ?? ''}
                    onChange={(event) => give(index, (event.target.value || null) as Field | null)}
                  >
                    <option value="">{t.leftOut}</option>
                    {FIELDS.map((field) => (
                      <option key={field} value={field}>
                        {t.fields[field]}
                      </option>
                    ))}
                  </select>
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {preview.rows.map((row, index) => (
            <tr key={index}>
              {preview.names.map((_, column) => (
                <td key={column} data-left-out={mapping && mapping[column] === null ? true : undefined}>
                  <bdi>{row[column]}</bdi>
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
