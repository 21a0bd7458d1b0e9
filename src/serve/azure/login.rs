//! Issues tokens, like the cloud's login and its machines.

use serde_json::{Value, json};

use super::http::{Request, Response};
use super::identity::{Identity, TOKEN_TIME, same};
use super::refusal::{Answered, refuse};
use super::text::{now, percent_decoded};

fn json_answer(status: u16, value: &Value) -> Response {
    Response::new(status).with_body("application/json; charset=utf-8", value.to_string())
}

/// The response to a request about logins; `None` for all others.
pub(super) fn answer(
    request: &Request,
    identity: &Identity,
    root: &str,
    open_identity: bool,
) -> Option<Answered> {
    let path = request.path.to_ascii_lowercase();
    if let Some(place) = path.strip_suffix("/.well-known/openid-configuration") {
        return Some(Ok(configuration(place, root)));
    }
    match path.as_str() {
        "/metadata/endpoints" => Some(Ok(endpoints(request, root))),
        "/common/discovery/instance" => Some(Ok(json_answer(
            200,
            &json!({
                "tenant_discovery_endpoint": format!("{root}/{}/v2.0/.well-known/openid-configuration", identity.tenant),
                "api-version": "1.1", "metadata": [],
            }),
        ))),
        "/metadata/identity/oauth2/token" => Some(machine(request, identity, open_identity)),
        "/msi/token" => Some(application(request, identity)),
        _ if request.method == "POST"
            && (path.ends_with("/oauth2/token") || path.ends_with("/oauth2/v2.0/token")) =>
        {
            Some(principal(request, identity))
        }
        _ => None,
    }
}

fn configuration(place: &str, root: &str) -> Response {
    let place = place.trim_end_matches("/v2.0");
    let token = if place.ends_with("/adfs") {
        "oauth2/token"
    } else {
        "oauth2/v2.0/token"
    };
    let authorize = token.replace("token", "authorize");
    json_answer(
        200,
        &json!({
            "issuer": format!("{root}{place}"),
            "token_endpoint": format!("{root}{place}/{token}"),
            "authorization_endpoint": format!("{root}{place}/{authorize}"),
            "jwks_uri": format!("{root}{place}/keys"),
            "response_types_supported": ["code", "id_token", "token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["HS256"],
        }),
    )
}

/// The description of the cloud, for `az cloud register`.
fn endpoints(request: &Request, root: &str) -> Response {
    let mut about = json!({
        "name": "vhdkit",
        "resourceManager": root,
        "authentication": {
            // A login of this kind doesn't need a host of the cloud itself.
            "loginEndpoint": format!("{root}/adfs"),
            "audiences": [format!("{root}/")],
            "tenant": "adfs",
            "identityProvider": "ADFS",
        },
        "suffixes": {
            "storage": "blob.localhost", "keyVaultDns": "vault.localhost", "sqlServerHostname": "sql.localhost",
            "acrLoginServer": "acr.localhost",
        },
    });
    for other in [
        "portal",
        "graph",
        "microsoftGraphResourceId",
        "gallery",
        "batch",
        "media",
        "sqlManagement",
    ] {
        if let Some(about) = about.as_object_mut() {
            about.insert(other.to_owned(), json!(root));
        }
    }
    // Older clients expect a list.
    let old = request
        .asked("api-version")
        .is_some_and(|version| version < "2020");
    json_answer(200, &if old { json!([about]) } else { about })
}

/// The service principal, by its password.
fn principal(request: &Request, identity: &Identity) -> Answered {
    let body = String::from_utf8_lossy(&request.body);
    let get = |wanted: &str| {
        let mut pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(name, _)| *name == wanted);
        found
            .and_then(|(_, value)| percent_decoded(value, true))
            .unwrap_or_default()
    };
    let denied = |error: &str, why: &str| {
        Ok(json_answer(
            401,
            &json!({ "error": error, "error_description": why }),
        ))
    };
    if get("grant_type") != "client_credentials" {
        let body = json!({
            "error": "unsupported_grant_type",
            "error_description": "This server knows the grant client_credentials only: log in as the service principal.",
        });
        return Ok(json_answer(400, &body));
    }
    if !get("client_id").eq_ignore_ascii_case(&identity.client_id) {
        return denied(
            "unauthorized_client",
            "There is no such service principal here.",
        );
    }
    if !same(
        get("client_secret").as_bytes(),
        identity.client_secret.as_bytes(),
    ) {
        return denied(
            "invalid_client",
            "The password of the service principal is wrong.",
        );
    }
    let resource = get("resource");
    let scope = get("scope");
    let audience = if resource.is_empty() {
        scope.trim_end_matches("/.default")
    } else {
        &resource
    };
    Ok(json_answer(
        200,
        &json!({
            "token_type": "Bearer",
            "expires_in": TOKEN_TIME - 1,
            "ext_expires_in": TOKEN_TIME - 1,
            "access_token": identity.token(audience, &identity.client_id)?,
        }),
    ))
}

/// The identity of a machine: every program on it gets a token.
fn machine(request: &Request, identity: &Identity, open: bool) -> Answered {
    if request
        .said("metadata")
        .is_none_or(|value| !value.eq_ignore_ascii_case("true"))
    {
        return refuse(
            400,
            "invalid_request",
            "Required metadata header not specified.",
        );
    }
    if request.said("x-forwarded-for").is_some()
        || !request.peer.is_some_and(|peer| peer.is_loopback())
    {
        return refuse(
            400,
            "invalid_request",
            "The identity of this machine is for this machine only.",
        );
    }
    if !open {
        return refuse(
            403,
            "access_denied",
            "The server was started without the identity of a machine.",
        );
    }
    of_identity(request, identity)
}

/// The identity of an application, which knows a secret.
fn application(request: &Request, identity: &Identity) -> Answered {
    let shown = request.said("x-identity-header").unwrap_or("");
    if !same(shown.as_bytes(), identity.identity_header.as_bytes()) {
        return refuse(
            403,
            "access_denied",
            "X-IDENTITY-HEADER is wrong or missing.",
        );
    }
    of_identity(request, identity)
}

fn of_identity(request: &Request, identity: &Identity) -> Answered {
    let Some(resource) = request
        .asked("resource")
        .filter(|resource| !resource.is_empty())
    else {
        return refuse(400, "invalid_request", "The parameter resource is missing.");
    };
    Ok(json_answer(
        200,
        &json!({
            "access_token": identity.token(resource, &identity.client_id)?,
            "client_id": identity.client_id,
            "expires_in": (TOKEN_TIME - 1).to_string(),
            "expires_on": (now() + TOKEN_TIME - 1).to_string(),
            "resource": resource,
            "token_type": "Bearer",
        }),
    ))
}
