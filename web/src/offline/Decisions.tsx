import { Dialog } from '@base-ui/react/dialog';
import shell from '../shell/shell.module.css';
import { decide } from '../tasks/commands.ts';
import { timeText } from '../tasks/times.ts';
import { useTexts, useTextsOf } from '../texts/index.ts';
import { outbox } from './kept.ts';
import type { Question } from './merge.ts';
import styles from './offline.module.css';
import type { Asked, Refused } from './outbox.ts';

const en = {
  heading: 'Changes that need you',
  both: 'Somebody else has changed the same since you saw it. Which one stays?',
  mine: 'Yours',
  theirs: 'Theirs',
  deleted: 'Somebody has deleted this task, which you have changed. Your change:',
  restore: 'Restore it, with your change',
  let: 'Leave it deleted',
  refused: 'This was not carried out:',
  dismiss: 'I have read it',
  later: 'Decide later',
  placedHere: 'Where you put it',
  placedThere: 'Where it stands now',
};

const de: typeof en = {
  heading: 'Änderungen, die Sie brauchen',
  both: 'Jemand anders hat dasselbe geändert, seit Sie es gesehen haben. Was bleibt?',
  mine: 'Ihres',
  theirs: 'Das andere',
  deleted: 'Jemand hat diese Aufgabe gelöscht, die Sie geändert haben. Ihre Änderung:',
  restore: 'Wiederherstellen, mit Ihrer Änderung',
  let: 'Gelöscht lassen',
  refused: 'Dies wurde nicht ausgeführt:',
  dismiss: 'Gelesen',
  later: 'Später entscheiden',
  placedHere: 'Wohin Sie sie gestellt haben',
  placedThere: 'Wo sie jetzt steht',
};

const ours = { en, de };

/** Field by field: what both have changed; and what was refused while nobody looked. */
export default function Decisions({ entries, onClose }: { entries: (Asked | Refused)[]; onClose: () => void }) {
  const t = useTextsOf(ours);
  return (
    <Dialog.Root open onOpenChange={(open) => !open && onClose()}>
      <Dialog.Portal>
        <Dialog.Backdrop className={shell.backdrop} />
        <Dialog.Popup className={shell.dialog} data-modal>
          <Dialog.Title className={shell.dialogTitle}>{t.heading}</Dialog.Title>
          <ul className={styles.decisions}>
            {entries.map((entry) => (
              <li key={entry.id}>{entry.kind === 'question' ? <Ask asked={entry} /> : <Tell refused={entry} />}</li>
            ))}
          </ul>
          <Dialog.Close className={shell.closing}>{t.later}</Dialog.Close>
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Ask({ asked }: { asked: Asked }) {
  const t = useTextsOf(ours);
  const { fields, events } = useTexts();
  const { question } = asked;
  const shownAs = useShown(question);
  if (question.field === 'deleted') {
    return (
      <div role="group" aria-label={question.title}>
        <h3>
          <bdi>{question.title}</bdi>
        </h3>
        <p>{t.deleted}</p>
        <p className={styles.value}>
          <bdi>{question.changes.map((change) => ('title' in change ? change.title : (events[EVENTS[change.type] ?? ''] ?? change.type))).join(', ')}</bdi>
        </p>
        <div className={styles.choices}>
          <button type="button" onClick={() => void decide(asked, 'mine')}>
            {t.restore}
          </button>
          <button type="button" onClick={() => void decide(asked, 'theirs')}>
            {t.let}
          </button>
        </div>
      </div>
    );
  }
  const name = fields[question.field] ?? question.field;
  return (
    <div role="group" aria-label={`${question.title}: ${name}`}>
      <h3>
        <bdi>{question.title}</bdi>: {name}
      </h3>
      <p>{t.both}</p>
      <div className={styles.choices}>
        <button type="button" onClick={() => void decide(asked, 'mine')}>
          <small>{t.mine}</small>
          <bdi>{question.field === 'rank' ? t.placedHere : shownAs(question.mine)}</bdi>
        </button>
        <button type="button" onClick={() => void decide(asked, 'theirs')}>
          <small>{t.theirs}</small>
          <bdi>{question.field === 'rank' ? t.placedThere : shownAs(question.theirs)}</bdi>
        </button>
      </div>
    </div>
  );
}

/** What a command makes. */
const EVENTS: Record<string, string> = {
  RenameTask: 'TaskRenamed', DescribeTask: 'TaskDescribed', ReprioritizeTask: 'TaskReprioritized', ScheduleTask: 'TaskScheduled',
  TagTask: 'TaskTagged', UntagTask: 'TaskUntagged', StartTask: 'TaskStarted', CompleteTask: 'TaskCompleted', ReopenTask: 'TaskReopened',
  CancelTask: 'TaskCancelled', RankTask: 'TaskRanked',
};

function useShown({ field }: Question): (value: string | null) => string {
  const t = useTexts();
  return (value) => {
    if (!value) return t.empty;
    if (field === 'status') return t.statuses[value] ?? value;
    if (field === 'priority') return t.priorities[value] ?? value;
    return field === 'due_at' ? timeText(value) : value;
  };
}

function Tell({ refused }: { refused: Refused }) {
  const t = useTextsOf(ours);
  const { problems } = useTexts();
  return (
    <div role="group" aria-label={refused.said}>
      <p>{t.refused}</p>
      <h3>{refused.said}</h3>
      <p>{problems[refused.problem.code] ?? refused.problem.text}</p>
      <div className={styles.choices}>
        <button type="button" onClick={() => void outbox.dismiss(refused.id)}>
          {t.dismiss}
        </button>
      </div>
    </div>
  );
}
