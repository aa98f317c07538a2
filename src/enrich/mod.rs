//! Place, network, client and route of an event.
