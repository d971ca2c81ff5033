//! Variables that Kubernetes sets in every container for each service of the namespace, and Docker for each link, after
//! the service's name: where one is called `primetrade`, `PRIMETRADE_SERVICE_HOST` and `PRIMETRADE_PORT=tcp://10.0.0.1:80`
//! are there. Nobody has written them, so they are no settings, and no mistakes either. They are known by the form of
//! their name and of their value; whatever has another form is held to be a setting.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

const PREFIX: &str = "PRIMETRADE_";
/// Between a link's name and the name of a variable of the container that it leads to.
const OF_LINK: &str = "_ENV_";

/// Takes them out.
pub fn remove(variables: &mut BTreeMap<String, String>) {
    let links: Vec<String> = variables
        .iter()
        .filter(|(_, value)| is_link(value))
        .filter_map(|(name, _)| name.strip_suffix("_NAME").map(str::to_owned))
        .collect();
    variables.retain(|name, value| {
        let of_link = name.split_once(OF_LINK).is_some_and(|(link, _)| links.iter().any(|known| known == link));
        !(name.starts_with(PREFIX) && (of_link || is_of_service(name, value)))
    });
}

fn is_of_service(name: &str, value: &str) -> bool {
    if let Some((_, after)) = name.split_once("_PORT_")
        && let Some(is_right) = of_port(after, value)
    {
        return is_right;
    }
    if name.ends_with("_SERVICE_HOST") {
        return is_address(value);
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_number(value);
    }
    (name.ends_with("_PORT") && is_url(value)) || (name.ends_with("_NAME") && is_link(value))
}

/// Of `<number>_<protocol>` and what may follow; none where the name has another form.
fn of_port(after: &str, value: &str) -> Option<bool> {
    let (number, rest) = after.split_once('_')?;
    let protocol = rest.split('_').next().filter(|protocol| matches!(*protocol, "TCP" | "UDP" | "SCTP"))?;
    if !is_number(number) {
        return None;
    }
    match &rest[protocol.len()..] {
        "" | "_START" | "_END" => Some(is_url(value)),
        "_ADDR" => Some(is_address(value)),
        "_PORT" | "_PORT_START" | "_PORT_END" => Some(is_number(value)),
        "_PROTO" => Some(is_protocol(value)),
        _ => None,
    }
}

/// `tcp://10.0.0.1:5432`
fn is_url(value: &str) -> bool {
    value.split_once("://").is_some_and(|(scheme, to)| is_protocol(scheme) && to.parse::<SocketAddr>().is_ok())
}

fn is_protocol(value: &str) -> bool {
    matches!(value, "tcp" | "udp" | "sctp")
}

fn is_address(value: &str) -> bool {
    value.parse::<IpAddr>().is_ok()
}

fn is_number(value: &str) -> bool {
    value.parse::<u16>().is_ok()
}

/// `/container/alias`
fn is_link(value: &str) -> bool {
    value
        .strip_prefix('/')
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(container, alias)| !container.is_empty() && !alias.is_empty() && !alias.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_set_is_taken_out_and_nothing_else() {
        let neighbours = [
            // Kubernetes: services called primetrade, primetrade-redis, primetrade-query-api, primetrade-database
            ("PRIMETRADE_SERVICE_HOST", "10.96.0.7"),
            ("PRIMETRADE_SERVICE_PORT", "8080"),
            ("PRIMETRADE_SERVICE_PORT_HTTP", "8080"),
            ("PRIMETRADE_PORT", "tcp://10.96.0.7:8080"),
            ("PRIMETRADE_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
            ("PRIMETRADE_PORT_8080_TCP_PROTO", "tcp"),
            ("PRIMETRADE_PORT_8080_TCP_PORT", "8080"),
            ("PRIMETRADE_PORT_8080_TCP_ADDR", "10.96.0.7"),
            ("PRIMETRADE_REDIS_PORT_6379_TCP_ADDR", "fd00::7"),
            ("PRIMETRADE_REDIS_PORT", "tcp://[fd00::7]:6379"),
            ("PRIMETRADE_DNS_PORT_53_UDP", "udp://10.96.0.8:53"),
            ("PRIMETRADE_SCTP_PORT_9_SCTP_PROTO", "sctp"),
            ("PRIMETRADE_QUERY_API_SERVICE_HOST", "10.96.0.9"),
            ("PRIMETRADE_DATABASE_PORT", "tcp://10.96.0.10:5432"),
            ("PRIMETRADE_READ_DATABASE_PORT", "tcp://10.96.0.10:5432"),
            ("PRIMETRADE_DATABASE_SERVICE_PORT_POSTGRES", "5432"),
            // Docker: a link with the alias primetrade-cache
            ("PRIMETRADE_CACHE_NAME", "/web/primetrade-cache"),
            ("PRIMETRADE_CACHE_ENV_REDIS_PASSWORD", "anything"),
            ("PRIMETRADE_CACHE_PORT_6379_TCP_START", "tcp://172.17.0.2:6379"),
            ("PRIMETRADE_CACHE_PORT_6379_TCP_PORT_END", "6380"),
        ];
        let settings = [
            ("PRIMETRADE_DATABASE_NAME", "primetrade"),
            ("PRIMETRADE_DATABASE_HOST", "10.96.0.10"),
            ("PRIMETRADE_READ_DATABASE_PORT", "5432"),
            ("PRIMETRADE_SERVICE_PORT_HTTP2", "many"),
            ("PRIMETRADE_OTHER_SERVICE_HOST", "db.example"),
            ("PRIMETRADE_HTTP_PORT", "8080"),
            ("PRIMETRADE_API_PORT", "http://10.96.0.7:80"),
            ("PRIMETRADE_PORT_HTTP", "8080"),
            ("PRIMETRADE_X_PORT_80_TCP_ADDRESS", "10.96.0.7"),
            ("PRIMETRADE_X_PORT_80_TCP_ADDR", "db.example"),
            ("PRIMETRADE_X_PORT_80_ICMP", "tcp://10.96.0.7:80"),
            ("PRIMETRADE_OTHER_ENV_SECRET", "no link"),
            ("PRIMETRADE_SOCKET_NAME", "/run"),
            ("REDIS_PORT", "tcp://10.96.0.7:6379"),
        ];
        let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let mut variables = owned(&neighbours);
        remove(&mut variables);
        assert_eq!(variables, BTreeMap::new());
        let mut variables = owned(&settings);
        remove(&mut variables);
        assert_eq!(variables, owned(&settings));
    }
}
