//! The routes of a program, and of which kind each is.

use std::collections::HashMap;

use axum::Router;

/// How the edge treats a route, whatever its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouteKind {
    /// Within the limits of whoever asks, and of the process.
    #[default]
    Ordinary,
    /// Answered to anybody at any time, from memory: operations, and the keys that services fetch.
    Always,
    /// Where tokens are to be had: a limit of its own. Passwords have a bounded queue of their own too.
    Authentication,
    /// The current password is looked at: the same queue.
    OwnPassword,
    /// A file comes as the body, which may be compressed.
    Upload,
}

/// The routes of a program, and of which kind each is. What a router brings along is ordinary.
#[derive(Default)]
pub struct Api {
    pub(crate) router: Router,
    /// Of those that are not ordinary, by path.
    pub(crate) kinds: HashMap<&'static str, RouteKind>,
}

impl Api {
    /// Both.
    #[must_use]
    pub fn merge(mut self, other: impl Into<Self>) -> Self {
        let other = other.into();
        self.kinds.extend(other.kinds);
        Self { router: self.router.merge(other.router), kinds: self.kinds }
    }

    /// With routes that are not ordinary. They are named as they are registered.
    #[must_use]
    pub fn of_kind(mut self, kind: RouteKind, paths: impl IntoIterator<Item = &'static str>) -> Self {
        self.kinds.extend(paths.into_iter().map(|path| (path, kind)));
        self
    }
}

impl From<Router> for Api {
    fn from(router: Router) -> Self {
        Self { router, kinds: HashMap::new() }
    }
}
