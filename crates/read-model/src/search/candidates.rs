use super::lexemes::{lexeme, pairs};
use super::matching::{Field, Relevance};
use super::query::{Part, Query, Term};

impl Query {
    /// Which tasks can match with a relevance up to this one, as a `tsquery` on their lexemes. `None`: any task can.
    ///
    /// All that match are found, and none else if the query [is exact](Self::is_exact).
    #[must_use]
    pub fn tsquery(&self, weakest: Relevance) -> Option<String> {
        let required = self.required.iter().map(|term| term.tsquery(weakest));
        let excluded = self.excluded.iter().filter(|term| term.is_exact());
        let excluded = excluded.map(|term| format!("!{}", term.tsquery(Relevance::WEAKEST)));
        let terms: Vec<String> = required.chain(excluded).collect();
        (!terms.is_empty()).then(|| terms.join(" & "))
    }

    /// Whether lexemes alone tell which tasks match; else these are held against their texts ([`Self::relevance`]).
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.required.iter().chain(&self.excluded).all(Term::is_exact)
    }
}

impl Term {
    fn is_exact(&self) -> bool {
        match self.parts.as_slice() {
            [Part::Word { .. }] => true,
            [Part::Run(run)] => run.len() <= 2,
            _ => false,
        }
    }

    /// In any of the fields; all parts in the same one.
    fn tsquery(&self, Relevance(weakest_field, may_be_prefix): Relevance) -> String {
        let fields = Field::ALL.into_iter().filter(|field| *field <= weakest_field);
        let alternatives: Vec<String> = fields
            .map(|field| {
                let is_prefix = field < weakest_field || may_be_prefix;
                let parts: Vec<String> = self.parts.iter().map(|part| part.tsquery(field, is_prefix)).collect();
                parts.join(" & ")
            })
            .collect();
        format!("({})", alternatives.join(" | "))
    }
}

impl Part {
    fn tsquery(&self, field: Field, may_be_prefix: bool) -> String {
        match self {
            Self::Word { folded, is_prefix, .. } => quoted(&lexeme(field, folded), *is_prefix && may_be_prefix),
            // The character begins a piece, wherever in a run it is.
            Self::Run(run) if run.len() == 1 => quoted(&lexeme(field, &run.iter().collect::<String>()), true),
            Self::Run(run) => {
                pairs(run).map(|pair| quoted(&lexeme(field, &pair), false)).collect::<Vec<_>>().join(" & ")
            }
        }
    }
}

fn quoted(lexeme: &str, is_prefix: bool) -> String {
    let escaped = lexeme.replace('\\', "\\\\").replace('\'', "''");
    format!("'{escaped}'{}", if is_prefix { ":*" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tsquery(q: &str, weakest: Relevance) -> Option<String> {
        Query::parse(q).unwrap().tsquery(weakest)
    }

    #[test]
    fn a_query_asks_for_lexemes() {
        for (q, expected) in [
            ("a ", "('ta' | 'ga' | 'da')"),
            ("a b", "('ta' | 'ga' | 'da') & ('tb':* | 'gb':* | 'db':*)"),
            ("\"a b\"", "('ta' & 'tb' | 'ga' & 'gb' | 'da' & 'db')"),
            ("a -b", "('ta' | 'ga' | 'da') & !('tb' | 'gb' | 'db')"),
            ("a -\"b c\"", "('ta' | 'ga' | 'da')"),
            ("会", "('t会':* | 'g会':* | 'd会':*)"),
            ("会議の", "('t会議' & 't議の' | 'g会議' & 'g議の' | 'd会議' & 'd議の')"),
            ("年1 ", "('t年':* & 't1' | 'g年':* & 'g1' | 'd年':* & 'd1')"),
            ("d'e\\ ", "('td''e' | 'gd''e' | 'dd''e')"),
        ] {
            assert_eq!(tsquery(q, Relevance::WEAKEST).as_deref(), Some(expected), "{q}");
        }
        assert_eq!(tsquery("-\"b c\"", Relevance::WEAKEST), None);
    }

    #[test]
    fn each_relevance_asks_for_more() {
        let asked = Relevance::ALL.map(|weakest| tsquery("a", weakest).unwrap());
        let expected = [
            "('ta')",
            "('ta':*)",
            "('ta':* | 'ga')",
            "('ta':* | 'ga':*)",
            "('ta':* | 'ga':* | 'da')",
            "('ta':* | 'ga':* | 'da':*)",
        ];
        assert_eq!(asked, expected);
    }

    #[test]
    fn words_and_pieces_of_runs_are_exact() {
        for (q, expected) in [
            ("a b -c", true),
            ("会議 -議", true),
            ("会議の", false),
            ("\"a b\"", false),
            ("-\"a b\"", false),
            ("年1", false),
        ] {
            assert_eq!(Query::parse(q).unwrap().is_exact(), expected, "{q}");
        }
    }
}
