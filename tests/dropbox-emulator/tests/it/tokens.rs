//! The token route, and what becomes of access tokens.

use std::time::Duration;

use dropbox_emulator::Options;
use serde_json::{Value, json};

use crate::client::{Answer, Client, start, start_with};

async fn token(client: &Client, fields: &[(&str, &str)]) -> Answer {
    Answer::read(client.post("/oauth2/token").form(fields).send().await.unwrap()).await
}

const REFRESH: [(&str, &str); 3] =
    [("grant_type", "refresh_token"), ("refresh_token", "emulator-refresh-token"), ("client_id", "emulator-app-key")];

#[tokio::test]
async fn a_refresh_token_gives_access_tokens_and_is_not_rotated() {
    let emulator = start().await;
    let mut client = Client::of(&emulator);
    let first = token(&client, &REFRESH).await.result();
    assert_eq!((&first["token_type"], &first["expires_in"]), (&json!("bearer"), &json!(14400)));
    assert!(first.get("refresh_token").is_none());
    let second = token(&client, &REFRESH).await.result();
    assert_ne!(first["access_token"], second["access_token"]);
    for granted in [first, second] {
        client.token = granted["access_token"].as_str().unwrap().to_owned();
        client.rpc("users/get_current_account", Value::Null).await.result();
    }
}

#[tokio::test]
async fn a_code_is_exchanged_with_the_secret_or_a_verifier() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let code = [
        ("grant_type", "authorization_code"),
        ("code", "emulator-authorization-code"),
        ("redirect_uri", "http://127.0.0.1/"),
    ];
    let with =
        |more: &[(&'static str, &'static str)]| [code.as_slice(), &[("client_id", "emulator-app-key")], more].concat();
    for proof in [("client_secret", "emulator-app-secret"), ("code_verifier", "v")] {
        let granted = token(&client, &with(&[proof])).await.result();
        assert_eq!(granted["refresh_token"], "emulator-refresh-token");
    }
    assert_eq!(token(&client, &with(&[])).await.json()["error"], "invalid_client");
    let basic = client.post("/oauth2/token").basic_auth("emulator-app-key", Some("emulator-app-secret")).form(&code);
    assert_eq!(basic.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn wrong_credentials_are_oauth_errors() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let mut fields = REFRESH;
    let error = async |fields: &[(&str, &str)]| {
        let answer = token(&client, fields).await;
        assert_eq!(answer.status, 400);
        answer.json()["error"].as_str().unwrap().to_owned()
    };
    fields[1].1 = "revoked";
    assert_eq!(error(&fields).await, "invalid_grant");
    assert_eq!(error(&[REFRESH[0], REFRESH[1], ("client_id", "other")]).await, "invalid_client");
    assert_eq!(error(&[REFRESH.as_slice(), &[("client_secret", "wrong")]].concat()).await, "invalid_client");
    assert_eq!(error(&[REFRESH[2], ("grant_type", "password")]).await, "unsupported_grant_type");
}

#[tokio::test]
async fn access_tokens_expire() {
    let emulator = start_with(Options { access_token_lifetime: Duration::ZERO, ..Options::default() }).await;
    let mut client = Client::of(&emulator);
    client.rpc("users/get_current_account", Value::Null).await.result();
    client.token = token(&client, &REFRESH).await.result()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(client.rpc("users/get_current_account", Value::Null).await.error(), "401 expired_access_token");

    client.token = Options::default().access_token;
    emulator.expire_access_tokens();
    assert_eq!(client.rpc("users/get_current_account", Value::Null).await.error(), "401 expired_access_token");
}
