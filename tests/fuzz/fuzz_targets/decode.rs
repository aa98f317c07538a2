//! Any bytes in any format decode without panic, and no event contains text that looks like a secret.
//!
//! The first byte chooses the format, the rest is the message.

#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use tokenwarden::event::Event;
use tokenwarden::token::{TokenHasher, looks_like_bearer};
use tokenwarden::wire::{self, Decoded, Decoder, Format};

fuzz_target!(|input: &[u8]| {
    let Some((choice, message)) = input.split_first() else { return };
    let format = Format::ALL[usize::from(*choice) % Format::ALL.len()];
    let hasher = TokenHasher::new(b"a key for fuzzing");
    let mut decoder = Decoder::new(format, hasher.clone());
    decoder.decode(message, &mut |record| match record {
        Ok(Decoded::Event(event)) => {
            assert!(!event.event_id.is_empty() && !event.token_id.as_str().is_empty());
            for text in texts(&event) {
                assert!(!looks_like_bearer(text), "{text}");
            }
        }
        Ok(Decoded::Skipped(reason)) => assert!(!reason.is_empty()),
        Err(error) => assert!(error.at.byte <= message.len() && error.at.line > 0 && error.at.column > 0),
    });
    let clean = wire::redact(message, &hasher);
    assert_eq!(wire::redact(&clean, &hasher), clean);
});

fn texts<'e>(event: &'e Event<'_>) -> impl Iterator<Item = &'e str> {
    let ids = [Some(event.token_id.as_str()), event.parent_token_id.as_ref().map(|id| id.as_str())];
    let texts = [
        Some(&event.event_id),
        event.family_id.as_ref(),
        event.session_id.as_ref(),
        event.user_id.as_ref(),
        event.app_id.as_ref(),
        event.tenant_id.as_ref(),
        event.user_agent.as_ref(),
        event.client_fingerprint.as_ref(),
        event.method.as_ref(),
        event.endpoint.as_ref(),
        event.binding.as_ref(),
    ];
    let attrs = event.attrs.iter().flat_map(|(name, value)| [name, value]);
    let texts = texts.into_iter().flatten().chain(&event.scopes).chain(attrs).map(Cow::as_ref);
    ids.into_iter().flatten().chain(texts)
}
