//! Routes, each registered together with its description.

use std::collections::HashMap;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_extractor;
use axum::routing::{self, MethodRouter};
use serde_json::Value;

use super::operation::Operation;
use crate::api::{Api, RouteKind};
use crate::query::NoQuery;

/// Routes, and what the document says about them.
pub struct Routes<S> {
    /// The routes.
    pub router: Router<S>,
    /// Their part of the document.
    pub described: Described,
    /// Of those that are not ordinary, by path.
    kinds: HashMap<&'static str, RouteKind>,
    /// Of those that follow.
    kind: RouteKind,
}

/// A part of the document.
#[derive(Default)]
pub struct Described {
    pub(super) operations: Vec<DescribedOperation>,
    pub(super) schemas: Vec<NamedSchema>,
}

pub(super) struct DescribedOperation {
    pub method: &'static str,
    pub path: &'static str,
    pub describe: fn() -> Operation,
}

pub(super) struct NamedSchema {
    pub name: &'static str,
    pub schema: fn() -> Value,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            router: Router::new(),
            described: Described::default(),
            kinds: HashMap::new(),
            kind: RouteKind::Ordinary,
        }
    }

    /// Those that follow are of this kind; without it they are ordinary.
    #[must_use]
    pub fn kind(self, kind: RouteKind) -> Self {
        Self { kind, ..self }
    }

    /// With what their handlers share.
    pub fn with_state(self, state: S) -> Api {
        Api { router: self.router.with_state(state), kinds: self.kinds }
    }

    /// `GET` of a path, and `HEAD`.
    #[must_use]
    pub fn get<H, T>(self, path: &'static str, handler: H, described: fn() -> Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.route("get", path, routing::get(handler), described)
    }

    /// `POST` to a path.
    #[must_use]
    pub fn post<H, T>(self, path: &'static str, handler: H, described: fn() -> Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.route("post", path, routing::post(handler), described)
    }

    /// `PATCH` of a path.
    #[must_use]
    pub fn patch<H, T>(self, path: &'static str, handler: H, described: fn() -> Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.route("patch", path, routing::patch(handler), described)
    }

    /// `DELETE` of a path.
    #[must_use]
    pub fn delete<H, T>(self, path: &'static str, handler: H, described: fn() -> Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.route("delete", path, routing::delete(handler), described)
    }

    /// Those so far take no parameters in the query.
    #[must_use]
    pub fn without_query(mut self) -> Self {
        self.router = self.router.route_layer(from_extractor::<NoQuery>());
        self
    }

    /// Both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.described.operations.extend(other.described.operations);
        self.described.schemas.extend(other.described.schemas);
        self.kinds.extend(other.kinds);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// A schema that descriptions refer to by its name.
    #[must_use]
    pub fn schema(mut self, name: &'static str, schema: fn() -> Value) -> Self {
        self.described.schemas.push(NamedSchema { name, schema });
        self
    }

    fn route(
        mut self,
        method: &'static str,
        path: &'static str,
        handler: MethodRouter<S>,
        describe: fn() -> Operation,
    ) -> Self {
        self.described.operations.push(DescribedOperation { method, path, describe });
        if self.kind != RouteKind::Ordinary {
            self.kinds.insert(path, self.kind);
        }
        Self { router: self.router.route(path, handler), ..self }
    }
}
