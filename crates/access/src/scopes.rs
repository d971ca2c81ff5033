//! What the access token of an API key is good for: scopes, in the token's claim `scope` as RFC 9068 has it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What every API key begins with: so it is known for one where it is sent, and found where it should not be.
pub const API_KEY_PREFIX: &str = "ptk_";

/// Something that an access token of an API key may be good for. None covers accounts or anything of admins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Whatever asks for no change: tasks, statistics, changes, jobs and their results, the live stream.
    TasksRead = 1,
    /// Whatever may change something of them.
    TasksWrite = 2,
}

impl Scope {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 2] = [Self::TasksRead, Self::TasksWrite];

    /// `tasks:read` or `tasks:write`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TasksRead => "tasks:read",
            Self::TasksWrite => "tasks:write",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether this one is among them.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them once.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    /// Those of these names that are known here: a newer program may have given others.
    pub fn known<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(Scope::parse).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope as u8))
    }
}

/// With spaces between.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, scope) in self.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}{}", scope.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::known(String::deserialize(deserializer)?.split(' ')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_with_spaces_between_and_read_again() {
        let both: Scopes = [Scope::TasksWrite, Scope::TasksRead].into_iter().collect();
        assert_eq!(serde_json::to_string(&both).expect("serialises"), r#""tasks:read tasks:write""#);
        for scopes in [both, Scopes::default(), [Scope::TasksWrite].into_iter().collect()] {
            let text = serde_json::to_string(&scopes).expect("serialises");
            assert_eq!(serde_json::from_str::<Scopes>(&text).expect("reads"), scopes);
        }
    }

    #[test]
    fn what_is_unknown_gives_nothing() {
        let read = |text: &str| Scopes::known(text.split(' '));
        let writer: Scopes = [Scope::TasksWrite].into_iter().collect();
        assert_eq!(read("tasks:write of-tomorrow"), writer);
        for nothing in ["", "tasks", "tasks:*", "TASKS:READ", "tasks:read,tasks:write"] {
            assert!(read(nothing).is_empty(), "{nothing}");
        }
    }
}
