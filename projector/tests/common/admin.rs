//! The admin endpoints, asked as a service would ask them.

use std::sync::Arc;

use access::token::{RootSecret, Sealer};
use access::{AUDIENCE, Claims, ISSUER, Keys, Revoked, Role, Verifier};
use axum::Extension;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use ed25519_dalek::SigningKey;
use http_body_util::BodyExt;
use projector::AdminApi;
use tokio::sync::watch;
use tower::ServiceExt;
use uuid::Uuid;

use super::Database;

/// The admin endpoints, and a token for each role.
pub struct Admin {
    router: axum::Router,
    key: SigningKey,
}

impl Admin {
    pub fn of(database: &Database) -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let keys = Keys::new([("k".to_owned(), key.verifying_key().to_bytes())]);
        let verifier = Verifier::new(watch::channel(Arc::new(keys)).1, watch::channel(Arc::new(Revoked::default())).1);
        let sealer =
            Sealer::new(&RootSecret::new("a secret of at least 32 bytes, for tests".to_owned().into()).unwrap());
        let api = AdminApi::new(database.pool.clone(), database.tail(), sealer);
        Self { router: projector::router(api).layer(Extension(verifier)), key }
    }

    pub async fn ask(&self, role: Option<Role>, method: Method, path: &str) -> (StatusCode, serde_json::Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(role) = role {
            let now = process::clock::now().timestamp();
            let claims = Claims {
                iss: ISSUER.to_owned(),
                aud: AUDIENCE.to_owned(),
                sub: Uuid::from_u128(99),
                sid: Uuid::from_u128(98),
                role,
                shard: 0,
                iat: now,
                exp: now + 600,
                jti: Uuid::from_u128(97),
                scope: None,
            };
            request = request.header("authorization", format!("Bearer {}", claims.sign("k", &self.key).unwrap()));
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null))
    }

    pub async fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.ask(Some(Role::Admin), Method::GET, path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    pub async fn retry_first(&self) {
        let list = self.get("/api/v1/admin/parked").await;
        let id = list["items"][0]["id"].as_str().unwrap();
        let (status, _) = self.ask(Some(Role::Admin), Method::POST, &format!("/api/v1/admin/parked/{id}/retry")).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
}
