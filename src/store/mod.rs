//! Where rows go: ClickHouse, as a server or embedded.
