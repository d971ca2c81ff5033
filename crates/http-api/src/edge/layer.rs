//! The middleware itself.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::http::header::{ACCEPT_ENCODING, ACCESS_CONTROL_REQUEST_METHOD};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, CatchUnwind};
use http_server::client_address::Peer;
use pin_project_lite::pin_project;
use process::context::RequestContext;
use process::load::{Load, Permit};
use tower::{Layer, Service};

use super::cors::preflight;
use super::route::{KnownRoute, METHOD_LABELS, method_number};
use super::rules::{Exchange, Rules};
use super::settings::Edge;
use crate::api::{Api, RouteKind};
use crate::problem::{Problem, ProblemCode};

/// Puts the middleware around the whole router, once.
pub fn edge(api: impl Into<Api>, edge: Edge) -> Router {
    let Api { router, kinds } = api.into();
    router.fallback(not_found).layer(EdgeLayer(Arc::new(Rules::new(edge, kinds))))
}

async fn not_found() -> Problem {
    Problem::new(ProblemCode::NotFound)
}

/// The answer to a request that there is no permit for.
fn refused(load: &Load) -> Problem {
    load.refused();
    Problem::overloaded()
}

#[derive(Clone)]
struct EdgeLayer(Arc<Rules>);

impl Layer<Route> for EdgeLayer {
    type Service = EdgeService;

    /// Called for each route and method, or for a route that takes all methods, so that each has its own metrics at hand.
    fn layer(&self, inner: Route) -> EdgeService {
        EdgeService { inner, rules: self.0.clone(), known: Arc::default() }
    }
}

#[derive(Clone)]
struct EdgeService {
    inner: Route,
    rules: Arc<Rules>,
    /// By method.
    known: Arc<[OnceLock<Arc<KnownRoute>>; METHOD_LABELS.len()]>,
}

impl EdgeService {
    fn route(&self, request: &Request) -> Arc<KnownRoute> {
        let method = method_number(request.method());
        let of_request = || {
            let path = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
            Arc::new(KnownRoute::new(METHOD_LABELS[method], path.into(), self.rules.kind(path)))
        };
        self.known[method].get_or_init(of_request).clone()
    }
}

impl Service<Request> for EdgeService {
    type Response = Response;
    type Error = Infallible;
    type Future = EdgeFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> EdgeFuture {
        let headers = request.headers();
        let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
        let client = self.rules.proxies.client(peer, headers);
        let mut exchange = Exchange {
            context: RequestContext::from_headers(headers).from_client(client.address).by_tls(client.tls),
            accept_encoding: headers.get(ACCEPT_ENCODING).cloned(),
            allowed_origin: self.rules.cors.allowed_origin(headers),
            route: self.route(&request),
            client,
            rate_limit: None,
            permit: None,
        };
        let is_preflight = exchange.allowed_origin.is_some()
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let load = &self.rules.load;
        let inner = if is_preflight {
            Inner::Early { response: Some(preflight()) }
        } else if exchange.route.kind != RouteKind::Ordinary {
            self.begin(request, &mut exchange)
        } else if let Some(permit) = load.enter() {
            exchange.work_under(permit);
            self.begin(request, &mut exchange)
        } else if load.is_calm() {
            let load = load.clone();
            let permit = async move { load.enter_in_burst().await }.boxed();
            Inner::Waiting { permit, asked: Some(Box::new((self.clone(), request))) }
        } else {
            exchange.early(refused(load))
        };
        EdgeFuture { inner, rest: Some((exchange, self.rules.clone())) }
    }
}

impl EdgeService {
    /// Hands it to its handler, if it may.
    fn begin(&mut self, mut request: Request, exchange: &mut Exchange) -> Inner {
        if let Err(problem) = self.rules.admit(&mut request, exchange) {
            return exchange.early(problem);
        }
        let future = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Inner::Handled { future: exchange.context.clone().scope(future) }
    }
}

impl Exchange {
    fn work_under(&mut self, permit: Permit) {
        self.context.working(permit.load());
        self.permit = Some(permit);
    }

    fn early(&self, problem: Problem) -> Inner {
        Inner::Early { response: Some(self.context.clone().sync_scope(|| problem.into_response())) }
    }
}

type Handled = tokio::task::futures::TaskLocalFuture<
    RequestContext,
    CatchUnwind<AssertUnwindSafe<axum::routing::future::RouteFuture<Infallible>>>,
>;

pin_project! {
    #[project = InnerProjection]
    enum Inner {
        // in a burst, for a permit
        Waiting { permit: BoxFuture<'static, Option<Permit>>, asked: Option<Box<(EdgeService, Request)>> },
        Early { response: Option<Response> },
        Handled { #[pin] future: Handled },
    }
}

pin_project! {
    struct EdgeFuture {
        #[pin]
        inner: Inner,
        rest: Option<(Exchange, Arc<Rules>)>,
    }
}

impl Future for EdgeFuture {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let InnerProjection::Waiting { permit, asked } = this.inner.as_mut().project() {
            let permit = ready!(permit.as_mut().poll(cx));
            let (Some((exchange, rules)), Some(asked)) = (this.rest.as_mut(), asked.take()) else {
                // polled again after it was done: against the contract of Future
                return Poll::Pending;
            };
            let (mut service, request) = *asked;
            let next = match permit {
                Some(permit) => {
                    exchange.work_under(permit);
                    service.begin(request, exchange)
                }
                None => exchange.early(refused(&rules.load)),
            };
            this.inner.set(next);
        }
        let answered = match this.inner.project() {
            InnerProjection::Waiting { .. } => return Poll::Pending,
            InnerProjection::Early { response } => Ok(response.take().unwrap_or_default()),
            InnerProjection::Handled { mut future } => {
                let answered = match ready!(future.as_mut().poll(cx)) {
                    Ok(Ok(response)) => Ok(response),
                    Ok(Err(never)) => match never {},
                    Err(panic) => Err(panic),
                };
                // The one that knows whose request it was.
                if let Some((exchange, _)) = this.rest
                    && let Some(context) = future.take_value()
                {
                    exchange.context = context;
                }
                answered
            }
        };
        let Some((exchange, rules)) = this.rest.take() else {
            // polled again after it was done: against the contract of Future
            return Poll::Pending;
        };
        let response = answered.unwrap_or_else(|panic| {
            exchange.context.clone().sync_scope(|| {
                Problem::internal(&format_args!("panic in {}: {}", exchange.route.path, panic_text(&*panic)))
                    .into_response()
            })
        });
        Poll::Ready(Ok(rules.finish(response, exchange)))
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
