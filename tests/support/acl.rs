//! Kafka permissions through librdkafka. `rdkafka` has no functions for them, and the test has no Kafka tool for them.

#![expect(unsafe_code, reason = "librdkafka is a C library; every pointer is made, used and destroyed in one block")]

use std::ffi::{CString, c_char};
use std::ptr;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
pub(crate) use rdkafka::bindings::rd_kafka_AclOperation_t as Operation;
use rdkafka::client::DefaultClientContext;

pub(crate) fn deny(admin: &AdminClient<DefaultClientContext>, operation: Operation, topic: &str, denied: bool) {
    let topic = CString::new(topic).expect("a topic");
    let (user, host) = (c"User:tokenwarden", c"*");
    let mut reason: [c_char; 256] = [0; 256];
    let rk = admin.inner().native_ptr();
    // SAFETY: the client lives; everything made here is destroyed here, after its last use.
    unsafe {
        let new = if denied { sys::rd_kafka_AclBinding_new } else { sys::rd_kafka_AclBindingFilter_new };
        let mut binding = new(
            sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
            topic.as_ptr(),
            sys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
            user.as_ptr(),
            host.as_ptr(),
            operation,
            sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_DENY,
            reason.as_mut_ptr(),
            reason.len(),
        );
        assert!(!binding.is_null(), "a permission");
        let queue = sys::rd_kafka_queue_new(rk);
        let ask = if denied { sys::rd_kafka_CreateAcls } else { sys::rd_kafka_DeleteAcls };
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
