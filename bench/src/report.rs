//! The table and the JSON.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Key in the JSON.
    pub key: String,
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What stands beside it: p99, baseline, ratio.
    pub beside: String,
    /// What it should be; empty where there is no target.
    pub target: String,
    /// Whether it is.
    pub met: Option<bool>,
    /// What is printed below it; empty where there is nothing.
    pub below: Vec<String>,
    /// The same in the JSON; null where there is nothing.
    pub details: Value,
}

/// A line on standard output. Who reads no further has had enough: the run goes on, and its file has all figures.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// All of a run, printed as they come.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
    /// Of the figure that comes next.
    below: Vec<String>,
    details: Value,
}

impl Report {
    /// A heading.
    pub fn part(&self, name: &str) {
        say(&format!("\n{name}"));
    }

    /// What belongs to the figure that comes next: lines to print below it, and the same for the JSON.
    pub fn details(&mut self, below: Vec<String>, details: Value) {
        (self.below, self.details) = (below, details);
    }

    /// A figure without a target.
    pub fn note(&mut self, key: &str, name: &str, value: f64, unit: &'static str, beside: String) {
        self.add(key, name, (value, unit), beside, String::new(), None);
    }

    /// A figure with a target.
    pub fn target(
        &mut self,
        key: &str,
        name: &str,
        value: (f64, &'static str),
        beside: String,
        target: &str,
        met: bool,
    ) {
        self.add(key, name, value, beside, target.to_owned(), Some(met));
    }

    fn add(
        &mut self,
        key: &str,
        name: &str,
        value: (f64, &'static str),
        beside: String,
        target: String,
        met: Option<bool>,
    ) {
        let (below, details) = (std::mem::take(&mut self.below), self.details.take());
        let (key, name) = (key.to_owned(), name.to_owned());
        let figure = Figure { key, name, value: value.0, unit: value.1, beside, target, met, below, details };
        say(&line(&figure));
        figure.below.iter().for_each(|line| say(&format!("      {line}")));
        self.figures.push(figure);
    }

    /// A figure that was measured before in this run.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.key == key).map(|figure| figure.value)
    }

    /// Writes the JSON; gives whether every target was met.
    pub fn finish(&self, path: &Path, about: &Value) -> bool {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|f| json!({"key": f.key, "name": f.name, "value": f.value, "unit": f.unit, "beside": f.beside, "target": f.target, "met": f.met, "details": f.details}))
            .collect();
        let whole = json!({"about": about, "figures": figures});
        if let Some(folder) = path.parent() {
            let _ = fs::create_dir_all(folder);
        }
        fs::write(path, format!("{whole:#}\n")).expect("JSON file");
        let missed: Vec<&Figure> = self.figures.iter().filter(|figure| figure.met == Some(false)).collect();
        say(&format!("\nwritten to {}", path.display()));
        for figure in &missed {
            say(&format!("not met: {}: {}", figure.name, line(figure).trim()));
        }
        missed.is_empty()
    }
}

fn line(figure: &Figure) -> String {
    let met = match figure.met {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "",
    };
    let value = format!("{} {}", rounded(figure.value), figure.unit);
    format!("  {:<44} {:>16}  {:<52} {:<28} {met}", figure.name, value, figure.beside, figure.target)
}

/// As many digits as say something.
pub fn rounded(value: f64) -> String {
    if value.abs() >= 1_000.0 {
        let whole = format!("{value:.0}");
        let mut text = String::new();
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
