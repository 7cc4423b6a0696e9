//! A component that exports nothing that a host could call.

wit_bindgen::generate!({
    inline: "
        package test:guest;
        world guest { export thing; }
        interface thing { ping: func(); }
    ",
});

struct Guest;
export!(Guest);

impl exports::test::guest::thing::Guest for Guest {
    fn ping() {}
}
