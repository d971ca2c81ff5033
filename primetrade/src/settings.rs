//! The configuration of one process, read once into typed sections.

use std::path::PathBuf;

use access::token::RootSecret;
use backends::database::{self, Address, DatabaseUrl, DatabaseUrls, Use};
use http_api::edge::EdgeSettings;
use http_server::Tls;
use identity::Ledger;
use jobs::Files;
use process::logs::LogSettings;
use secrecy::ExposeSecret;
use serde::Serialize;
use service::{Listen, check_forms};
use settings::exposure;
use settings::{ConfigError, Origin, Source, VARIABLES, Variable, invalid};

use crate::privileges::{FILE_ON_STDIN, HANDED_DOWN};

const RUN_AS: &str = "PRIMETRADE_RUN_AS";
const POSTGRES_BIN: &str = "PRIMETRADE_POSTGRES_BIN";

/// Variables that only the single process knows.
const OWN_VARIABLES: [Variable; 2] = [
    Variable::open(RUN_AS, None, "user to go on as when root starts the managed PostgreSQL"),
    Variable::open(POSTGRES_BIN, None, "folder of initdb and postgres, if not where packages put them"),
];

/// What the flags say; they win over the file and over variables.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--database-url`
    pub database_url: Option<String>,
}

/// The configuration in types.
pub struct Settings {
    /// Where the API listens.
    pub listen: Listen,
    /// The data folder, as it was given.
    pub data_dir: PathBuf,
    /// Without a URL to write to: the managed PostgreSQL.
    pub databases: DatabaseUrls,
    /// None: the one in the data folder.
    pub secret: Option<RootSecret>,
    /// User to go on as instead of root.
    pub run_as: Option<String>,
    /// Folder of `initdb` and `postgres`.
    pub postgres_bin: Option<PathBuf>,
    /// Who may ask for how much, and who vouches for whom.
    pub edge: EdgeSettings,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Where all of them come from.
    pub source: Source,
}

/// A line of `primetrade config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The variable.
    pub name: &'static str,
    /// The value that holds, the default too; of a secret only that there is one. None: neither.
    pub value: Option<String>,
    /// Who says so.
    pub origin: &'static str,
    /// What it is for.
    pub about: &'static str,
}

impl Settings {
    /// Reads the environment, the file over it, and the flags over both.
    ///
    /// # Errors
    /// The first setting that is not as it should be, by name.
    pub fn read(flags: &Flags) -> Result<Self, ConfigError> {
        Self::from_source(flags, Source::from_env())
    }

    fn from_source(flags: &Flags, mut source: Source) -> Result<Self, ConfigError> {
        // Root has read the file by then, and handed down what stands in it.
        if std::env::var_os(HANDED_DOWN).is_none() {
            source.add_file(flags.config.as_deref())?;
        }
        let own: Vec<&str> = OWN_VARIABLES.iter().map(|own| own.name).chain([HANDED_DOWN, FILE_ON_STDIN]).collect();
        source.check_names(&own)?;
        if let Some(listen) = &flags.listen {
            source.set("PRIMETRADE_LISTEN", listen);
        }
        if let Some(url) = &flags.database_url {
            source.set("PRIMETRADE_DATABASE_URL", url);
        }
        if let Some(path) = &flags.data_dir {
            source.set("PRIMETRADE_DATA_DIR", path.to_string_lossy());
        }
        let databases = DatabaseUrls::read(&source)?;
        for (given, for_use) in
            [(&databases.write, Use::Write), (&databases.read, Use::Write), (&databases.replica, Use::Read)]
        {
            let Some(DatabaseUrl { url, settings, .. }) = given else { continue };
            Address::parse(url, for_use).map_err(|reason| invalid(settings, &reason))?;
        }
        if databases.write.is_none() && databases.read.is_some() {
            let reason = "it needs PRIMETRADE_DATABASE_URL beside it, since the managed PostgreSQL keeps both";
            return Err(invalid("PRIMETRADE_READ_DATABASE_URL", &reason));
        }
        check_forms(&source)?;
        // A path need not be UTF-8; and after root handed down, it is the one that was given away.
        let data_dir = std::env::var_os(HANDED_DOWN).map(PathBuf::from).or_else(|| flags.data_dir.clone());
        let data_dir = match data_dir {
            Some(path) => path,
            None => source.text("PRIMETRADE_DATA_DIR")?.map_or_else(|| PathBuf::from("./data"), PathBuf::from),
        };
        Ok(Self {
            listen: Listen::read(&source)?,
            data_dir,
            databases,
            secret: RootSecret::read(&source)?,
            run_as: source.text(RUN_AS)?,
            postgres_bin: source.text(POSTGRES_BIN)?.map(PathBuf::from),
            edge: EdgeSettings::read(&source)?,
            log: LogSettings::read(&source)?,
            source,
        })
    }

    /// How connections are encrypted; only a server needs the files.
    ///
    /// # Errors
    /// One of them is missing or no good.
    pub fn tls(&self) -> Result<Option<Tls>, ConfigError> {
        Tls::read(&self.source)
    }

    /// Where files of jobs are: in the data folder, where nothing else is said.
    ///
    /// # Errors
    /// The setting is no good, or the folder cannot be made.
    pub fn files(&self) -> Result<Files, ConfigError> {
        match Files::read(&self.source)? {
            Some(files) => Ok(files),
            None => {
                Files::folder(&self.data_dir.join("objects")).map_err(|error| invalid("PRIMETRADE_DATA_DIR", &error))
            }
        }
    }

    /// Where the ledger is kept, if it is.
    ///
    /// # Errors
    /// The setting cannot be read.
    pub fn ledger(&self) -> Result<Option<Ledger>, ConfigError> {
        Ok(self.source.text("PRIMETRADE_SECURITY_LEDGER")?.map(|path| Ledger::new(path.into())))
    }

    /// Refuses to be reached by others with settings that are not fit for it.
    ///
    /// # Errors
    /// Names the first such setting.
    pub fn check_exposure(&self) -> Result<(), ConfigError> {
        exposure::check(&self.source, self.listen.address)
    }

    /// What was read from files that root may read: for the process that goes on as another user, in variables.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read_from_files(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let mut values = Vec::new();
        for variable in VARIABLES.iter().chain(&OWN_VARIABLES) {
            let from_file = std::env::var_os(format!("{}_FILE", variable.name)).is_some_and(|path| !path.is_empty());
            let given = from_file || self.source.origin(variable.name) == Origin::File;
            if given && let Some(value) = self.source.text(variable.name)? {
                values.push((variable.name.to_owned(), value));
            }
        }
        Ok(values)
    }

    /// Every setting with the value that holds; secrets are not told.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn shown(&self) -> Result<Vec<Shown>, ConfigError> {
        let shown = VARIABLES.iter().chain(&OWN_VARIABLES).map(|variable| {
            let given = self.source.text(variable.name)?;
            let origin = self.source.origin(variable.name).as_str();
            let value = match given {
                // a password may look like a URL
                Some(_) if variable.secret && !variable.name.ends_with("_URL") => Some("(set)".to_owned()),
                Some(value) if variable.secret => Some(shown_value(&value)),
                Some(value) => Some(value),
                None => self.default_of(variable),
            };
            Ok(Shown { name: variable.name, value, origin, about: variable.about })
        });
        shown.collect()
    }

    fn default_of(&self, variable: &Variable) -> Option<String> {
        let data_dir = self.data_dir.display();
        match variable.name {
            "PRIMETRADE_DATABASE_URL" => Some(match &self.databases.write {
                Some(given) => shown_value(given.url.expose_secret()),
                None => format!("(managed, in {data_dir})"),
            }),
            "PRIMETRADE_READ_DATABASE_URL" => Some(match &self.databases.read {
                Some(given) => shown_value(given.url.expose_secret()),
                None => format!("(managed, in {data_dir})"),
            }),
            "PRIMETRADE_SECRET" if self.data_dir.join("secret").exists() => Some(format!("(set, in {data_dir})")),
            "PRIMETRADE_SECRET" => Some(format!("(made at the first start, in {data_dir})")),
            "PRIMETRADE_OBJECT_STORE_URL" => Some(format!("(objects, in {data_dir})")),
            _ => variable.default.map(str::to_owned),
        }
    }
}

/// Of a URL only where it leads to; of any other secret only that there is one.
fn shown_value(value: &str) -> String {
    database::shown(value).unwrap_or_else(|| "(set)".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::from_source(&Flags::default(), Source::from_pairs(variables.iter().copied()))
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        read(variables).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_example_and_the_docs_name_every_variable() {
        let there_are: BTreeSet<&str> = VARIABLES.iter().chain(&OWN_VARIABLES).map(|variable| variable.name).collect();
        let example = include_str!("../../.env.example").lines();
        let example = example.filter_map(|line| line.trim_start_matches('#').split_once('=')).map(|(name, _)| name);
        let of_compose_alone = ["POSTGRES_PASSWORD", "GATEWAY_ADDRESS", "NETWORK_PREFIX"];
        let example = example.filter(|name| !name.contains(' ') && !of_compose_alone.contains(name));
        assert_eq!(example.collect::<BTreeSet<_>>(), there_are);
        // of its tables the first column
        let documented = include_str!("../../docs/configuration.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
        let documented = documented
            .flat_map(|cell| cell.split('`'))
            .filter(|name| name.contains("PRIMETRADE_") || name.starts_with("OTEL_"));
        assert_eq!(documented.collect::<BTreeSet<_>>(), there_are);
    }

    #[test]
    fn defaults_need_nothing() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.listen.address.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.data_dir, PathBuf::from("./data"));
        assert!(settings.databases.write.is_none() && settings.secret.is_none());
    }

    #[test]
    fn errors_name_the_variable_and_keep_its_secret() {
        for (name, value) in [
            ("PRIMETRADE_DATABASE_URL", "postgres://me:hidden@host:notaport/x"),
            ("PRIMETRADE_READ_DATABASE_URL", "postgres://me:hidden@host/x"),
            ("PRIMETRADE_DATABASE_URL", "mysql://me:hidden@host/x"),
            ("PRIMETRADE_LISTEN", "8080"),
            ("PRIMETRADE_LISTN", "127.0.0.1:8080"),
            ("PRIMETRADE_KAFKA_BROKERS", "kafka"),
            ("PRIMETRADE_REDIS_URL", "hidden"),
        ] {
            let error = refused(&[(name, value)]);
            assert!(error.contains(name) && !error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn what_holds_is_shown_defaults_too() {
        let shown = |settings: Settings, name: &str| {
            settings.shown().unwrap().into_iter().find(|shown| shown.name == name).unwrap()
        };
        let of = |variables: &[(&str, &str)], name: &str| {
            let Shown { value, origin, .. } = shown(read(variables).unwrap(), name);
            (value.unwrap_or_default(), origin)
        };
        let default = |value: &str| (value.to_owned(), "default");
        assert_eq!(of(&[], "PRIMETRADE_LISTEN"), default("127.0.0.1:8080"));
        assert_eq!(of(&[("PRIMETRADE_LISTEN", "[::1]:1")], "PRIMETRADE_LISTEN"), ("[::1]:1".to_owned(), "variable"));
        assert_eq!(of(&[], "PRIMETRADE_RATE_LIMITS"), default("on"));
        assert_eq!(of(&[], "PRIMETRADE_JWKS_URL"), default(""));
        let nowhere = [("PRIMETRADE_DATA_DIR", "/nonexistent")];
        assert_eq!(of(&nowhere, "PRIMETRADE_SECRET"), default("(made at the first start, in /nonexistent)"));
        assert_eq!(of(&nowhere, "PRIMETRADE_DATABASE_URL"), default("(managed, in /nonexistent)"));
        let url = [("PRIMETRADE_DATABASE_URL", "postgres://me:hidden@db:5432/x")];
        assert_eq!(of(&url, "PRIMETRADE_READ_DATABASE_URL"), default("postgres://db:5432/x"));
        // And they are those that are read.
        assert_eq!(LogSettings::read(&Source::default()).unwrap().filter.to_string(), of(&[], "PRIMETRADE_LOG").0);
        assert_eq!(read(&[]).unwrap().data_dir.to_str(), Some(&*of(&[], "PRIMETRADE_DATA_DIR").0));
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = "s".repeat(40);
        let settings = read(&[
            ("PRIMETRADE_DATABASE_URL", "postgres://me:hidden@db:5432/x?password=hidden"),
            ("PRIMETRADE_SECRET", &secret),
        ]);
        let shown = format!("{:?}", settings.unwrap().shown().unwrap());
        assert!(shown.contains("postgres://db:5432/x") && shown.contains("(set)"), "{shown}");
        assert!(!shown.contains("hidden") && !shown.contains(&secret), "{shown}");
    }

    #[test]
    fn flags_win() {
        let flags = Flags { listen: Some("[::1]:9".to_owned()), data_dir: Some("/x".into()), ..Flags::default() };
        let source = Source::from_pairs([("PRIMETRADE_LISTEN", "1.2.3.4:5"), ("PRIMETRADE_DATA_DIR", "/y")]);
        let settings = Settings::from_source(&flags, source).unwrap();
        assert_eq!(settings.listen.address.to_string(), "[::1]:9");
        assert_eq!(settings.data_dir, PathBuf::from("/x"));
    }
}
