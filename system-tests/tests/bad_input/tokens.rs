//! Access tokens that are none. To judge what stands in a token and not only who signed it, the test has a key of its own
//! among those that the server believes: everything here but the forgeries is signed as it should be.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};
use system_tests::client::Account;
use system_tests::wait::until;
use uuid::Uuid;

use super::table::{Case, Refused, Target, family};

const KID: &str = "a-key-of-the-tests";
const SOON: Duration = Duration::from_secs(30);

/// What tokens are made from.
struct Forge {
    /// The server believes it.
    key: SigningKey,
    /// A session that there is.
    claims: Value,
}

impl Forge {
    async fn new(target: &Target) -> Forge {
        let key = SigningKey::from_bytes(&[42; 32]);
        // its private half is not what an installation would have written there: it signs nothing of the server's own
        sqlx::query(
            "insert into identity.signing_key (kid, private_key, public_key, created_at, signs_from) \
             values ($1, '\\x00', $2, now() - interval '1 day', now() - interval '1 day') on conflict do nothing",
        )
        .bind(KID)
        .bind(&key.verifying_key().to_bytes()[..])
        .execute(&target.database)
        .await
        .expect("a key");
        until("the key is shown", SOON, || async {
            let jwks = target.api.get("/.well-known/jwks.json").try_send().await.ok()?;
            jwks.text().contains(KID).then_some(())
        })
        .await;
        let own = target.account.token.split('.').nth(1).expect("three parts");
        let own = URL_SAFE_NO_PAD.decode(own).expect("base64url");
        Forge { key, claims: serde_json::from_slice(&own).expect("claims") }
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": KID})
    }

    /// Any text for header and claims, signed by a key.
    fn signed(key: &SigningKey, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = key.sign(signed.as_bytes()).to_bytes();
        format!("{signed}.{}", encode(signature))
    }

    fn with_header(&self, header: &Value) -> String {
        Self::signed(&self.key, &header.to_string(), &self.claims.to_string())
    }

    /// The header with one member more, or another value for one.
    fn with(&self, member: &str, value: Value) -> String {
        let mut header = Self::header();
        header[member] = value;
        self.with_header(&header)
    }

    fn without(&self, member: &str) -> String {
        let mut header = Self::header();
        header.as_object_mut().expect("object").remove(member);
        self.with_header(&header)
    }

    /// The claims as any text.
    fn claiming(&self, claims: &str) -> String {
        Self::signed(&self.key, &Self::header().to_string(), claims)
    }

    fn claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.claiming(&claims.to_string())
    }

    fn missing(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().expect("object").remove(name).expect("a claim");
        self.claiming(&claims.to_string())
    }

    /// The claims with the text of one member doubled or replaced.
    fn replaced(&self, from: &str, to: &str) -> String {
        let claims = self.claims.to_string();
        assert!(claims.contains(from), "{claims}");
        self.claiming(&claims.replace(from, to))
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token that takes the public key for a shared secret.
fn hmac(algorithm: &str, secret: &[u8], claims: &Value) -> String {
    let header = json!({"alg": algorithm, "typ": "at+jwt", "kid": KID});
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    macro_rules! tag {
        ($hash:ty) => {{
            let mut mac = Hmac::<$hash>::new_from_slice(secret).expect("any length");
            mac.update(signed.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }};
    }
    let tag = match algorithm {
        "HS384" => tag!(Sha384),
        "HS512" => tag!(Sha512),
        _ => tag!(Sha256),
    };
    format!("{signed}.{}", encode(tag))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("seconds")
}

/// Each token tries to make a task.
fn cases(target: &Target, tokens: Vec<(String, String)>) -> Vec<Case> {
    let attempt = |(name, token): (String, String)| {
        let request = target.api.post("/api/v1/tasks", &json!({"title": "by a forged token"}));
        Case::new(name, request.header("Authorization", &format!("Bearer {token}")), 401, "unauthenticated")
    };
    tokens.into_iter().map(attempt).collect()
}

fn named(name: &str, token: String) -> (String, String) {
    (name.to_owned(), token)
}

#[tokio::test]
async fn headers() {
    family("JWT headers", async |target| {
        let forge = Forge::new(&target).await;
        // what all of the following differ from is good
        let good = forge.with_header(&Forge::header());
        let me = target.api.get("/api/v1/auth/me").header("Authorization", &format!("Bearer {good}"));
        me.send().await.expect(200);

        let attacker = SigningKey::from_bytes(&[66; 32]);
        let own_jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(attacker.verifying_key().to_bytes())});
        let with_own_key = |member: &str, value: Value| {
            let mut header = Forge::header();
            header[member] = value;
            Forge::signed(&attacker, &header.to_string(), &forge.claims.to_string())
        };
        let mut tokens = Vec::new();
        for alg in ["none", "None", "NONE", "nOnE", "none ", "", "eddsa", "EDDSA", "EdDSA ", "Ed25519", "Ed448"] {
            tokens.push(named(&format!("alg {alg:?}"), forge.with("alg", json!(alg))));
            // and without a signature, as "none" has it
            let unsigned = json!({"alg": alg, "typ": "at+jwt", "kid": KID});
            let unsigned = format!("{}.{}.", encode(unsigned.to_string()), encode(forge.claims.to_string()));
            tokens.push(named(&format!("alg {alg:?}, no signature"), unsigned));
        }
        for alg in ["RS256", "PS256", "ES256", "ES256K", "HS256"] {
            tokens.push(named(&format!("alg {alg}, signed with Ed25519"), forge.with("alg", json!(alg))));
        }
        for (name, alg) in [("null", json!(null)), ("a list", json!(["EdDSA"])), ("a number", json!(0))] {
            tokens.push(named(&format!("alg is {name}"), forge.with("alg", alg)));
        }
        for member in ["alg", "typ", "kid"] {
            tokens.push(named(&format!("no {member}"), forge.without(member)));
        }
        let public = forge.key.verifying_key().to_bytes();
        let jwks = target.api.get("/.well-known/jwks.json").send().await.text();
        for alg in ["HS256", "HS384", "HS512"] {
            for (name, secret) in [
                ("public key", public.to_vec()),
                ("public key in base64url", encode(public).into_bytes()),
                ("public key in base64", STANDARD.encode(public).into_bytes()),
                ("key set", jwks.clone().into_bytes()),
                ("nothing", Vec::new()),
            ] {
                tokens.push(named(&format!("{alg} with the {name}"), hmac(alg, &secret, &forge.claims)));
            }
        }
        tokens.push(named("embedded jwk", with_own_key("jwk", own_jwk.clone())));
        tokens.push(named("embedded jwk, rightly signed", forge.with("jwk", own_jwk)));
        for member in ["jku", "x5u"] {
            tokens.push(named(member, with_own_key(member, json!("https://attacker.example/keys"))));
            tokens.push(named(&format!("{member}, rightly signed"), forge.with(member, json!("http://127.0.0.1:1/"))));
        }
        tokens.push(named("x5c", with_own_key("x5c", json!([STANDARD.encode([48; 200])]))));
        for kid in [
            "../../../../dev/null",
            "/dev/null",
            "..\\..\\key",
            "file:///proc/self/environ",
            "' or 1=1 --",
            "x'; drop table identity.signing_key; --",
            "' union select '\\x00",
            "$(id)",
            "|id",
            "%00",
            "\u{0}",
            "",
            " a-key-of-the-tests",
            "A-KEY-OF-THE-TESTS",
        ] {
            tokens.push(named(&format!("kid {kid:?}"), forge.with("kid", json!(kid))));
        }
        tokens.push(named("kid of 10 KB", forge.with("kid", json!("k".repeat(10_000)))));
        for (name, kid) in [("a number", json!(1)), ("a list", json!([KID])), ("an object", json!({"kid": KID}))] {
            tokens.push(named(&format!("kid is {name}"), forge.with("kid", kid)));
        }
        tokens.push(named("crit unknown", forge.with("crit", json!(["http://attacker.example/ext"]))));
        tokens.push(named("crit empty", forge.with("crit", json!([]))));
        tokens.push(named("crit exp", forge.with("crit", json!(["exp"]))));
        tokens.push(named("b64 false", forge.with("b64", json!(false))));
        tokens.push(named("zip", forge.with("zip", json!("DEF"))));
        tokens.push(named("enc", forge.with("enc", json!("A256GCM"))));
        tokens.push(named("typ JWT", forge.with("typ", json!("JWT"))));
        tokens.push(named("typ of another token", forge.with("typ", json!("logout+jwt"))));
        let claims = forge.claims.to_string();
        for (name, header) in [
            ("alg twice", format!(r#"{{"alg":"none","alg":"EdDSA","typ":"at+jwt","kid":"{KID}"}}"#)),
            ("kid twice", format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"x","kid":"{KID}"}}"#)),
            ("header is a list", "[]".to_owned()),
            ("header is null", "null".to_owned()),
            ("header is empty", String::new()),
            ("header is deep", "[".repeat(500)),
        ] {
            tokens.push(named(name, Forge::signed(&forge.key, &header, &claims)));
        }
        cases(&target, tokens)
    })
    .await;
}

#[tokio::test]
async fn claims() {
    family("JWT claims", async |target| {
        let forge = Forge::new(&target).await;
        let in_an_hour = now() + 3600;
        let mut tokens = Vec::new();
        for (name, exp) in [
            ("past", json!(now() - 60)),
            ("0", json!(0)),
            ("negative", json!(-1)),
            ("a string", json!(in_an_hour.to_string())),
            ("a fraction", json!(in_an_hour as f64 + 0.5)),
            ("1e30", json!(1e30)),
            ("2^64", serde_json::from_str("18446744073709551616").expect("a number")),
            ("null", json!(null)),
            ("a list", json!([in_an_hour])),
            ("true", json!(true)),
        ] {
            tokens.push(named(&format!("exp is {name}"), forge.claim("exp", exp)));
        }
        for (name, nbf) in [
            ("in an hour", json!(in_an_hour)),
            ("a string", json!("now")),
            ("negative", json!(-1)),
            ("2^64", serde_json::from_str("18446744073709551616").expect("a number")),
            ("null", json!(null)),
        ] {
            tokens.push(named(&format!("nbf is {name}"), forge.claim("nbf", nbf)));
        }
        tokens.push(named("iat in an hour", forge.claim("iat", json!(in_an_hour))));
        tokens.push(named("iat a string", forge.claim("iat", json!("now"))));
        for claim in ["iss", "aud", "sub", "sid", "role", "shard", "iat", "exp", "jti"] {
            tokens.push(named(&format!("no {claim}"), forge.missing(claim)));
        }
        for iss in [json!("another"), json!("PrimeTrade"), json!(""), json!(["primetrade"]), json!(null)] {
            tokens.push(named(&format!("iss is {iss}"), forge.claim("iss", iss)));
        }
        for aud in [json!("another"), json!(["another"]), json!(["primetrade-api", "another"]), json!({}), json!(null)]
        {
            tokens.push(named(&format!("aud is {aud}"), forge.claim("aud", aud)));
        }
        for (claim, value) in [
            ("sub", json!("admin")),
            ("sub", json!(1)),
            ("sub", json!(null)),
            ("sub", json!("' or 1=1 --")),
            ("sid", json!("x")),
            ("jti", json!("")),
            ("role", json!("root")),
            ("role", json!("Admin")),
            ("role", json!(["admin"])),
            ("role", json!(null)),
            ("shard", json!("0")),
            ("shard", json!(70_000)),
            ("scope", json!(null)),
            ("scope", json!(["tasks:read"])),
            ("permissions", json!("everything")),
        ] {
            tokens.push(named(&format!("{claim} is {value}"), forge.claim(claim, value)));
        }
        let sub = format!("\"sub\":{}", forge.claims["sub"]);
        let stranger = format!("\"sub\":\"{}\",{sub}", Uuid::nil());
        tokens.push(named("sub twice", forge.replaced(&sub, &stranger)));
        tokens.push(named("role twice", forge.replaced("\"role\":\"user\"", "\"role\":\"admin\",\"role\":\"user\"")));
        let exp = format!("\"exp\":{}", forge.claims["exp"]);
        tokens.push(named("exp twice", forge.replaced(&exp, &format!("{exp},{exp}"))));
        for (name, claims) in [
            ("claims are a list", "[]".to_owned()),
            ("claims are null", "null".to_owned()),
            ("claims are empty", String::new()),
            ("claims are broken", "{\"iss\":".to_owned()),
            ("claims are deep", "{\"a\":".repeat(300)),
        ] {
            tokens.push(named(name, forge.claiming(&claims)));
        }
        cases(&target, tokens)
    })
    .await;
}

/// The order of the curve's group, little-endian: a signature plus it is another text for the same signature.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn plus_group_order(signature: &[u8]) -> Vec<u8> {
    let mut other = signature.to_vec();
    let mut carry = 0;
    for (byte, order) in other[32..].iter_mut().zip(GROUP_ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    other
}

#[tokio::test]
async fn signatures_and_forms() {
    family("JWT signatures and forms", async |target| {
        let forge = Forge::new(&target).await;
        let good = forge.with_header(&Forge::header());
        let (signed, signature) = good.rsplit_once('.').expect("three parts");
        let signature_bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let with_signature = |bytes: &[u8]| format!("{signed}.{}", encode(bytes));
        let other = SigningKey::from_bytes(&[66; 32]);
        let header = Forge::header().to_string();
        let own_kid: Value = {
            let own = target.account.token.split('.').next().expect("a header");
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(own).expect("base64url")).expect("JSON")
        };
        let claims = forge.claims.to_string();
        let admin = claims.replace("\"role\":\"user\"", "\"role\":\"admin\"");
        let mut identity = vec![0; 64];
        identity[0] = 1;
        let [first, second, third] = [0, 1, 2].map(|part| good.split('.').nth(part).expect("three parts").to_owned());
        let login = json!({"email": target.account.email, "password": target.account.password});
        let refresh = target.api.post("/api/v1/auth/login", &login).send().await.expect(200).string("/refresh_token");
        let ended: Account =
            target.api.log_in(target.account.id, &target.account.email, &target.account.password).await;
        ended.request("POST", "/api/v1/auth/logout").send().await.expect(204);
        let tokens = vec![
            named("empty signature", format!("{signed}.")),
            named("no signature", signed.to_owned()),
            named("all-zero signature", with_signature(&[0; 64])),
            named("all-one signature", with_signature(&[255; 64])),
            named("the neutral point for a signature", with_signature(&identity)),
            named("half a signature", with_signature(&signature_bytes[..32])),
            named("a byte less", with_signature(&signature_bytes[..63])),
            named("a byte more", with_signature(&[&signature_bytes[..], &[0]].concat())),
            named("the signature twice", with_signature(&signature_bytes.repeat(2))),
            named("the signature in another form", with_signature(&plus_group_order(&signature_bytes))),
            named("a padded signature", format!("{good}==")),
            named("the signature of other claims", format!("{first}.{}.{third}", encode(&admin))),
            named("another installation's key under our kid", Forge::signed(&other, &header, &claims)),
            named(
                "another installation's key under the server's kid",
                Forge::signed(&other, &own_kid.to_string(), &claims),
            ),
            named(
                "another installation's key",
                Forge::signed(&other, &header.replace(KID, "another-installation"), &claims),
            ),
            named("five parts", format!("{first}..{second}.{third}.{third}")),
            named("four parts", format!("{good}.{third}")),
            named("two dots", "..".to_owned()),
            named("one part", first.clone()),
            named("parts in another order", format!("{second}.{first}.{third}")),
            named("the alphabet of plain base64", format!("{signed}.{}", STANDARD.encode(&signature_bytes))),
            named("a space inside", format!("{first} .{second}.{third}")),
            named("a second token behind", format!("{good} {good}")),
            named("a token of 20 KB", format!("{signed}.{}", "A".repeat(20_000))),
            named("a refresh token", refresh),
            named("a JSON string", format!("\"{good}\"")),
            named("a session that was ended", ended.token.clone()),
        ];
        let mut all = cases(&target, tokens);
        let task = || target.api.post("/api/v1/tasks", &json!({"title": "by no token"}));
        let bearer = format!("Bearer {good}");
        let refused = |name: &str, request| Case::new(name, request, 401, "unauthenticated");
        all.extend([
            refused("no header", task()),
            refused("an empty header", task().header("Authorization", "")),
            refused("no scheme", task().header("Authorization", &good)),
            refused("Basic", task().header("Authorization", &format!("Basic {}", STANDARD.encode("a:b")))),
            refused("another scheme", task().header("Authorization", &format!("DPoP {good}"))),
            refused("scheme and no token", task().header("Authorization", "Bearer ")),
            refused("scheme twice", task().header("Authorization", &format!("Bearer {bearer}"))),
            refused("a list of two", task().header("Authorization", &format!("{bearer}, {bearer}"))),
            refused("in a cookie", task().header("Cookie", &format!("access_token={good}"))),
            refused("in another header", task().header("X-Authorization", &bearer)),
            refused(
                "a role by header",
                task().header("X-Role", "admin").header("X-User-Id", &target.account.id.to_string()),
            ),
            Case::new(
                "two headers",
                task().header("Authorization", &bearer).header("Authorization", &bearer),
                400,
                "invalid-parameter",
            ),
        ]);
        let in_query = target.api.post(&format!("/api/v1/tasks?access_token={good}"), &json!({"title": "by query"}));
        // told or not, it must not open anything
        all.push(refused("in the query", in_query));
        all
    })
    .await;
}

/// What no client library would send.
#[tokio::test]
async fn authorization_by_hand() {
    family("Authorization by hand", async |target| {
        let token = &target.account.token;
        let with = |authorization: &[u8]| {
            let host = target.api.authority();
            let body = r#"{"title":"by hand"}"#;
            let head = format!("POST /api/v1/tasks HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
            let rest = format!("\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            [head.as_bytes(), authorization, rest.as_bytes()].concat()
        };
        let header = |value: &str| with(format!("Authorization: {value}").as_bytes());
        let unauthenticated = Refused::With(401, "unauthenticated");
        vec![
            Case::raw("a byte beyond ASCII", with(b"Authorization: Bearer \xff\xfe"), unauthenticated),
            Case::raw("a tab for the space", header(&format!("Bearer\t{token}")), unauthenticated),
            Case::raw("NUL behind the token", header(&format!("Bearer {token}\0")), Refused::ByParser(400)),
            Case::raw("a folded line", header(&format!("Bearer\r\n {token}")), Refused::ByParser(400)),
            Case::raw(
                "a space before the colon",
                with(format!("Authorization : Bearer {token}").as_bytes()),
                Refused::ByParser(400),
            ),
        ]
    })
    .await;
}

/// A token of this installation's own key opens what its account may do, and no more.
#[tokio::test]
async fn roles() {
    family("roles", async |target| {
        let me = format!("/api/v1/users/{}", target.account.id);
        let retry = format!("/api/v1/admin/parked/{}/retry", Uuid::now_v7());
        let forbidden = |name: &str, request| Case::new(name, request, 403, "forbidden");
        vec![
            forbidden("makes itself an admin", target.account.request("PATCH", &me).json(&json!({"role": "admin"}))),
            forbidden("disables itself", target.account.request("PATCH", &me).json(&json!({"disabled": true}))),
            forbidden("lists accounts", target.account.request("GET", "/api/v1/users")),
            forbidden("reads projections", target.account.request("GET", "/api/v1/admin/projections")),
            forbidden("reads what is parked", target.account.request("GET", "/api/v1/admin/parked")),
            forbidden("retries what is parked", target.account.request("POST", &retry)),
            Case::new(
                "gives itself a role by its profile",
                target.account.request("PATCH", "/api/v1/auth/me").json(&json!({"name": "x", "role": "admin"})),
                400,
                "malformed-body",
            ),
            Case::new(
                "registers as an admin",
                target.api.post(
                    "/api/v1/auth/register",
                    &json!({"email": "me@example.com", "password": "a long password", "name": "Me", "role": "admin"}),
                ),
                400,
                "malformed-body",
            ),
        ]
    })
    .await;
}
