//! Kafka permissions through librdkafka. `rdkafka` has no functions for them, and the test has no Kafka tool for them.

#![expect(unsafe_code, reason = "librdkafka is a C library; every pointer is made, used and destroyed in one block")]

use std::ffi::{CString, c_char};
use std::ptr;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
pub(crate) use rdkafka::bindings::{
    rd_kafka_AclOperation_t as Operation, rd_kafka_AclPermissionType_t as Permission,
    rd_kafka_ResourceType_t as Resource,
};
use rdkafka::client::DefaultClientContext;

/// Creates a rule for the user `tokenwarden`, or removes it.
pub(crate) fn set(
    admin: &AdminClient<DefaultClientContext>,
    (permission, operation): (Permission, Operation),
    (resource, name): (Resource, &str),
    exists: bool,
) {
    let name = CString::new(name).expect("a name");
    let (user, host) = (c"User:tokenwarden", c"*");
    let mut reason: [c_char; 256] = [0; 256];
    let rk = admin.inner().native_ptr();
    // SAFETY: the client lives; everything made here is destroyed here, after its last use.
    unsafe {
        let new = if exists { sys::rd_kafka_AclBinding_new } else { sys::rd_kafka_AclBindingFilter_new };
        let mut binding = new(
            resource,
            name.as_ptr(),
            sys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
            user.as_ptr(),
            host.as_ptr(),
            operation,
            permission,
            reason.as_mut_ptr(),
            reason.len(),
        );
        assert!(!binding.is_null(), "a permission");
        let queue = sys::rd_kafka_queue_new(rk);
        let ask = if exists { sys::rd_kafka_CreateAcls } else { sys::rd_kafka_DeleteAcls };
        ask(rk, &raw mut binding, 1, ptr::null(), queue);
        let event = sys::rd_kafka_queue_poll(queue, 30_000);
        assert!(!event.is_null(), "the broker answers");
        let error = sys::rd_kafka_event_error(event);
        sys::rd_kafka_event_destroy(event);
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AclBinding_destroy(binding);
        assert_eq!(error, sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    }
}
