//! Bodies that are not plain UTF-8 text.

use anyhow::Result;

use crate::common::{ROLLED_BACK, World, assert_same, critical, delivery, dump, exchange, outcomes};

const WEBHOOK: &str = "/webhooks/alertmanager";
/// `{"prompt":"p"}`, compressed.
const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xab\x56\x2a\x28\xca\xcf\x2d\x28\x51\xb2\x52\x2a\x50\xaa\x05\0\xef\x79\x44\x6a\x0e\0\0\0";
const ZLIB: &[u8] = b"\x78\x9c\xab\x56\x2a\x28\xca\xcf\x2d\x28\x51\xb2\x52\x2a\x50\xaa\x05\0\x26\x06\x04\xcd";
/// Every route that reads a body, except Slack's, which reads only signed ones.
const ROUTES: [&str; 10] = [
    WEBHOOK,
    "/api/rollback",
    "/api/import",
    "/api/prompts/p/versions",
    "/api/prompts/p/versions/v1/restore",
    "/api/prompts/p/activate",
    "/api/incidents/01KAHJ3Y3W8Q0000000000000A/decide",
    "/api/drill",
    "/api/pause",
    "/api/resume",
];

async fn encoded(world: &World, path: &str, encoding: &str, body: &[u8]) -> Result<String> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    exchange(world.receiver.app.address, &[head.as_bytes(), body].concat()).await
}

#[tokio::test]
async fn a_compressed_body_is_400_and_says_so_on_every_route() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let before = dump(&world.redis).await?;
    for path in ROUTES {
        for encoding in ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "x-unknown"] {
            let answer = encoded(&world, path, encoding, GZIP).await?;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{path} {encoding}: {answer}");
            let named = encoding.rsplit(", ").next().unwrap_or_default();
            assert!(answer.contains(&format!("Content-Encoding: {named}")), "{path} {encoding}: {answer}");
            assert!(answer.contains("is not supported, send the body uncompressed"), "{path} {encoding}: {answer}");
        }
        // compressed without a declaration
        for (body, name) in [(GZIP, "gzip"), (ZLIB, "zlib (deflate)"), (b"\x28\xb5\x2f\xfd\x20", "zstd")] {
            let answer = world.http().post(path, body.to_vec()).await?;
            assert_eq!(answer.status, 400, "{path} {name}: {}", answer.text());
            let expected = format!("body: expected uncompressed UTF-8 text, found {name}");
            assert_eq!(answer.json()?["error"]["message"], expected, "{path}");
        }
    }
    assert_same(&before, &dump(&world.redis).await?, "compressed bodies");
    let answer = encoded(&world, WEBHOOK, "Identity", delivery(&[critical("p")]).as_bytes()).await?;
    assert!(answer.contains("\"rolled_back\""), "identity is no encoding: {answer}");
    Ok(())
}

#[tokio::test]
async fn utf_16_is_named_and_a_byte_order_mark_of_utf_8_does_no_harm() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let before = dump(&world.redis).await?;
    let body = delivery(&[critical("p")]);
    let utf_16 = |mark: bool, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        mark.then_some(0xfeff).into_iter().chain(body.encode_utf16()).flat_map(bytes).collect()
    };
    for (mark, bytes) in [
        (true, u16::to_le_bytes as fn(u16) -> [u8; 2]),
        (true, u16::to_be_bytes),
        (false, u16::to_le_bytes),
        (false, u16::to_be_bytes),
    ] {
        for path in [WEBHOOK, "/api/rollback"] {
            let answer = world.http().post(path, utf_16(mark, bytes)).await?;
            let message = &answer.json()?["error"]["message"];
            assert_eq!(answer.status, 400, "{message}");
            assert_eq!(message, "body: expected uncompressed UTF-8 text, found UTF-16 or UTF-32");
        }
    }
    assert_same(&before, &dump(&world.redis).await?, "bodies in UTF-16");
    let marked = [b"\xef\xbb\xbf", body.as_bytes()].concat();
    assert_eq!(outcomes(&world.http().post(WEBHOOK, marked).await?)?, [ROLLED_BACK]);
    let marked = b"\xef\xbb\xbf{\"reason\":\"tone\"}".to_vec();
    assert_eq!(world.http().post("/api/pause", marked).await?.status, 200);
    Ok(())
}
