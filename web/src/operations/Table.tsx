import type { ReactNode } from 'react';
import styles from './operations.module.css';

interface Properties {
  /** Read out to who does not see it. */
  caption: string;
  columns: string[];
  rows: { key: string; cells: ReactNode[] }[];
}

export function Table({ caption, columns, rows }: Properties) {
  return (
    <div className={styles.scrolled} tabIndex={0} role="region" aria-label={caption}>
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ key, cells }) => (
            <tr key={key}>
              {cells.map((cell, index) => (
                <td key={index}>{cell}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export const number = (n: number) => n.toLocaleString(document.documentElement.lang, { maximumFractionDigits: 1 });
