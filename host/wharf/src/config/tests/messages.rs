//! What a person reads who made a mistake: the exact line for each.

use super::*;

/// Each document gives exactly these lines.
fn check(cases: &[(&str, &str)]) {
    let place = Place::new();
    for (text, expected) in cases {
        assert_eq!(place.problems(text), *expected, "for:\n{text}");
    }
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    check(&[
        (
            "[connections.partner]\ntype = 'ftp'\nhots = 'x'\nuser = 'u'\npassword = { env = 'PARTNER_PASSWORD' }",
            "wharf.toml:1: connections.partner.host: missing: the name or the address of the server\n\
             wharf.toml:3: connections.partner.hots: unknown key; did you mean \"host\"?",
        ),
        ("[hsot]\n", "wharf.toml:1: hsot: unknown key; did you mean \"host\"?"),
        ("[admin]\nfrobnicate = 1", "wharf.toml:2: admin.frobnicate: unknown key; known here: listen, open"),
        ("[host]\nservcies = 'x'", "wharf.toml:2: host.servcies: unknown key; did you mean \"services\"?"),
        (
            "[http]\n\nbody-max-size = '1KiB'",
            "wharf.toml:3: http.body-max-size: unknown key; did you mean \"body-max\"?",
        ),
        (
            "[services.\"a.b\"]\nmemroy = 1",
            "wharf.toml:2: services.\"a.b\".memroy: unknown key; did you mean \"memory\"?",
        ),
        (
            "[service-defaults]\ntime-out = 1",
            "wharf.toml:2: service-defaults.time-out: unknown key; did you mean \"timeout\"?",
        ),
        (
            "[connections.a]\ntype = 'local'\nfolder = 'inbox'\npassword = { env = 'X' }",
            "wharf.toml:4: connections.a.password: unknown key; known here: type, root, operations-max, \
             connect-timeout, read-timeout, idle-timeout, life-time, retries, bandwidth, folder",
        ),
        (
            "[services.a]\ngrants = [\n  { connection = 'files', acess = 'read' },\n]\n\
             [connections.files]\ntype = 'local'\nfolder = 'inbox'",
            "wharf.toml:3: services.a.grants[0].acess: unknown key; did you mean \"access\"?",
        ),
    ]);
}

#[test]
fn a_value_of_the_wrong_type_is_told_what_was_expected() {
    check(&[
        ("host = 1", "wharf.toml:1: host: expected a table, found an integer"),
        ("services = []", "wharf.toml:1: services: expected a table, found an array"),
        ("[services]\na = 1", "wharf.toml:2: services.a: expected a table, found an integer"),
        ("[http]\nopen = 'yes'", "wharf.toml:2: http.open: expected true or false, found a string"),
        (
            "[http]\nlisten = 80",
            "wharf.toml:2: http.listen: expected an address such as \"127.0.0.1:8080\", found an integer",
        ),
        (
            "[http]\nhead-max = 65536",
            "wharf.toml:2: http.head-max: expected a size such as \"64MiB\" or \"500KB\", found an integer",
        ),
        (
            "[host]\ndrain = 1.5",
            "wharf.toml:2: host.drain: expected a duration such as \"30s\" or \"500ms\", found a float",
        ),
        ("[host]\ninstances-max = '9'", "wharf.toml:2: host.instances-max: expected a whole number, found a string"),
        (
            "[host]\nlog-format = true",
            "wharf.toml:2: host.log-format: expected one of \"text\", \"json\", found a boolean",
        ),
        ("[host]\nservices = 1979-05-27", "wharf.toml:2: host.services: expected a path as a string, found a datetime"),
        (
            "[host]\negress-allow = '::/0'",
            "wharf.toml:2: host.egress-allow: expected a list of networks such as [\"10.0.0.0/8\"], found a string",
        ),
        ("[services.a]\ngrants = 'all'", "wharf.toml:2: services.a.grants: expected a list of tables, found a string"),
        ("[services.a]\ngrants = ['all']", "wharf.toml:2: services.a.grants[0]: expected a table, found a string"),
        ("[connections]\na = 'b'", "wharf.toml:2: connections.a: expected a table, found a string"),
    ]);
}

#[test]
fn a_value_that_makes_no_sense_is_repeated_with_what_would() {
    check(&[
        (
            "[host]\nscan-interval = '2 parsecs'",
            "wharf.toml:2: host.scan-interval: \"2 parsecs\" is not a duration; write a number and a unit, such as \
             \"500ms\", \"30s\" or \"2m\"",
        ),
        (
            "[host]\nscan-interval = '-2s'",
            "wharf.toml:2: host.scan-interval: \"-2s\" is not a duration; write a number and a unit, such as \
             \"500ms\", \"30s\" or \"2m\"",
        ),
        (
            "[host]\ncomponent-max = 'big'",
            "wharf.toml:2: host.component-max: \"big\" is not a size; write a number and a unit, such as \"64MiB\" \
             or \"500KB\"",
        ),
        (
            "[http]\nlisten = 'localhost:8080'",
            "wharf.toml:2: http.listen: \"localhost:8080\" is not an address with a port; write one such as \
             \"127.0.0.1:8080\" or \"[::1]:8080\"",
        ),
        (
            "[host]\negress-allow = ['10.0.0.0/8', '10.0.0.0/33']",
            "wharf.toml:2: host.egress-allow: \"10.0.0.0/33\" is not a network; write one such as \"10.0.0.0/8\" or \
             \"192.168.1.7\"",
        ),
        (
            "[host]\nlog-format = 'jsno'",
            "wharf.toml:2: host.log-format: unknown value \"jsno\"; did you mean \"json\"?",
        ),
        (
            "[host]\nlog-format = 'xml'",
            "wharf.toml:2: host.log-format: unknown value \"xml\"; it must be one of \"text\", \"json\"",
        ),
        ("[host]\nlog = 'inof'", "wharf.toml:2: host.log: \"inof\" is no level of the log; did you mean \"info\"?"),
        (
            "[host]\nlog = 'wharf_runtime=debug,quiet'",
            "wharf.toml:2: host.log: \"quiet\" is no level of the log; the levels are off, error, warn, info, debug, \
             trace; for one module, write such as \"warn,wharf_runtime=debug\"",
        ),
        ("[host]\nlog = 'WARN,wharf_runtime=debug,[invocation]=trace'", "no problem"),
        (
            "[host]\nlog = 'a=b=c'",
            "wharf.toml:2: host.log: \"a=b=c\" does not select log lines; write a level such as \"info\", or \
             \"warn,wharf_runtime=debug\"",
        ),
        ("[host]\nstate = ''", "wharf.toml:2: host.state: must not be empty"),
        (
            "[services.a]\ngrants = [{ connection = 'files', path = '/a/../b' }]\n\
             [connections.files]\ntype = 'local'\nfolder = 'inbox'",
            "wharf.toml:2: services.a.grants[0].path: path \"/a/../b\" must not have '.' or '..' as a component",
        ),
    ]);
}

#[test]
fn a_limit_that_is_passed_is_named() {
    check(&[
        ("[services.a]\nreuse = 0", "wharf.toml:2: services.a.reuse: 0 is out of bounds; it must be from 1 to 1000000"),
        (
            "[services.a]\nconcurrency = 0",
            "wharf.toml:2: services.a.concurrency: 0 is out of bounds; it must be from 1 to 10000",
        ),
        (
            "[services.a]\nconcurrency = -1",
            "wharf.toml:2: services.a.concurrency: -1 is out of bounds; it must be from 1 to 10000",
        ),
        (
            "[services.a]\nconcurrency = 0xfffff",
            "wharf.toml:2: services.a.concurrency: 0xfffff is out of bounds; it must be from 1 to 10000",
        ),
        (
            "[services.a]\nmemory = '1KiB'",
            "wharf.toml:2: services.a.memory: \"1KiB\" is out of bounds; it must be from 1MiB to 4GiB",
        ),
        (
            "[services.a]\nmemory = '99999999999999EiB'",
            "wharf.toml:2: services.a.memory: \"99999999999999EiB\" is out of bounds; it must be from 1MiB to 4GiB",
        ),
        (
            "[services.a]\ntimeout = '25h'",
            "wharf.toml:2: services.a.timeout: \"25h\" is out of bounds; it must be from 10ms to 24h",
        ),
        (
            "[http]\nhead-max = '1KiB'",
            "wharf.toml:2: http.head-max: \"1KiB\" is out of bounds; it must be from 8KiB to 1MiB",
        ),
        (
            "[connections.a]\ntype = 'ftp'\nhost = 'h'\nport = 65536\nuser = 'u'\npassword = { env = \
             'PARTNER_PASSWORD' }",
            "wharf.toml:4: connections.a.port: 65536 is out of bounds; it must be from 1 to 65535",
        ),
        (
            "[connections.a]\ntype = 'local'\nfolder = 'inbox'\noperations-max = 0",
            "wharf.toml:4: connections.a.operations-max: 0 is out of bounds; it must be from 1 to 256",
        ),
    ]);
}

#[test]
fn a_secret_in_plain_text_is_refused_without_repeating_it() {
    let place = Place::new();
    let partner = |password: &str| {
        place.problems(format!("[connections.partner]\ntype = 'ftp'\nhost = 'h'\nuser = 'u'\npassword = {password}"))
    };
    let line = "wharf.toml:5: connections.partner.password";
    let form = "write { env = \"NAME\" } or { file = \"path\" }";
    assert_eq!(partner("'hunter2'"), format!("{line}: a secret is not written into this file; {form} instead"));
    assert_eq!(partner("12345"), format!("{line}: expected a reference to a secret, {form}, found an integer"));
    assert_eq!(
        partner("{ secret = 'p' }"),
        format!("{line}: this host has no store of secrets yet, so {{ secret = ... }} leads nowhere; {form}")
    );
    assert_eq!(partner("{}"), format!("{line}: an empty reference; {form}"));
    assert_eq!(
        partner("{ env = 'PARTNER_PASSWORD', file = 'x' }"),
        format!("{line}: env and file exclude each other; {form}")
    );
    assert_eq!(partner("{ evn = 'PARTNER_PASSWORD' }"), format!("{line}.evn: unknown key; did you mean \"env\"?"));
    assert_eq!(
        partner("{ env = 'hunter 2' }"),
        format!("{line}.env: this is not the name of an environment variable (letters, digits, _)")
    );
}

#[test]
fn a_secret_on_a_line_that_is_not_toml_is_not_repeated() {
    let place = Place::new();
    for line in [
        "password = 'hunter2",
        "password = hunter2",
        "password = \"hunter2\" x",
        "password == 'hunter2'",
        "hunter2 = 1 = 2",
        "password = \"\\hunter2\"",
    ] {
        let problems = place.problems(format!("[connections.partner]\ntype = 'ftp'\n{line}\n"));
        assert!(problems.starts_with("wharf.toml:3: not valid TOML: "), "{problems}");
        assert!(!problems.contains("hunter"), "{problems}");
    }
    for line in ["pasword = 'hunter2'", "user = { hunter2 = 1 }", "host = 'ftp://u:hunter2@host/'", "port = 'hunter2'"]
    {
        let problems = place.problems(format!("[connections.partner]\ntype = 'ftp'\n{line}\n"));
        assert!(!problems.contains("hunter2"), "{problems}");
    }
    let problems = place.problems("[connections.api]\ntype = 'http'\nurl = 'https://u:hunter2@host/'");
    assert_eq!(problems, "wharf.toml:3: connections.api.url: a URL must not hold a user name or a password");
}

#[test]
fn a_reference_that_leads_nowhere_names_what_is_missing() {
    let place = Place::new();
    place.write("secrets/empty", "\n");
    place.write("secrets/binary", b"\xff\xfe");
    place.write("secrets/open", "pw");
    place.set_mode("secrets/open", 0o666);
    let partner = |reference: &str| {
        place.problems(format!("[connections.partner]\ntype = 'ftp'\nhost = 'h'\nuser = 'u'\npassword = {reference}"))
    };
    let line = "wharf.toml:5: connections.partner.password";
    for (reference, expected) in [
        ("{ env = 'MISSING' }", "env: the environment variable MISSING is not set"),
        ("{ env = 'EMPTY' }", "env: the environment variable EMPTY is empty"),
        (
            "{ file = 'secrets/none' }",
            "file: the file secrets/none cannot be read: No such file or directory (os error 2)",
        ),
        ("{ file = 'secrets' }", "file: the file secrets cannot be read: it is not a regular file"),
        ("{ file = 'secrets/empty' }", "file: the file secrets/empty is empty"),
        ("{ file = 'secrets/binary' }", "file: the file secrets/binary is not UTF-8 text"),
        (
            "{ file = 'secrets/open' }",
            "file: everybody on this machine may change the file secrets/open; take that right away: chmod o-w \
             secrets/open",
        ),
    ] {
        assert_eq!(partner(reference), format!("{line}.{expected}"));
    }
}

#[test]
fn a_secret_file_that_everybody_may_read_is_a_warning() {
    let place = Place::new();
    place.set_mode("secrets/team.token", 0o644);
    let team = "[connections.team]\ntype = 'dropbox'\naccess-token = { file = 'secrets/team.token' }";
    let warnings = place.load(team).unwrap().warnings;
    place.set_mode("secrets/team.token", 0o660);
    assert_eq!(place.load(team).unwrap().warnings, [], "the group of the file is the operator's choice");
    let warnings: Vec<String> = warnings.iter().map(|warning| place.shortened(&warning.to_string())).collect();
    assert_eq!(
        warnings,
        ["wharf.toml:3: connections.team.access-token.file: everybody on this machine may read the file \
          secrets/team.token; chmod o-r secrets/team.token"]
    );
}

#[test]
fn who_needs_one_connection_is_not_told_what_is_wrong_with_others() {
    let place = Place::new();
    let text = "[http]\nlisten = '0.0.0.0:80'\n[admin]\nlisten = 5\n[service-defaults]\nmemory = 1\n\
                [connections.files]\ntype = 'local'\nfolder = 'inbox'\n\
                [connections.team]\ntype = 'dropbox'\napp-key = 'k'\nrefresh-token = { file = 'no/such' }\n\
                [services.a]\ngrants = [{ connection = 'nothing' }]\n";
    let configuration = place.load_for("files", text).unwrap();
    assert_eq!(configuration.connection_names(), ["files", "team"]);
    assert_eq!(configuration.live.connections.keys().collect::<Vec<_>>(), ["files"]);
    assert!(place.load_for("other", text).unwrap().live.connections.is_empty());
    let team = "wharf.toml:13: connections.team.refresh-token.file: the file no/such cannot be read: No such file or \
                directory (os error 2); wharf dropbox login team makes it";
    assert_eq!(place.shortened(&place.load_for("team", text).unwrap_err().to_string()), team);
    assert!(place.problems(text).lines().count() > 4, "{}", place.problems(text));
    // What holds for every connection must be right.
    place.load_for("files", format!("[host]\negress-allow = 5\n{text}")).unwrap_err();
}

#[test]
fn grants_are_checked_against_the_connections() {
    let connections = "[connections.partner]\ntype = 'local'\nfolder = 'inbox'\n[connections.api]\ntype = \
    'http'\nurl = 'https://api.example.com'\n";
    let place = Place::new();
    let granted = |grants: &str| place.problems(format!("{connections}[services.a]\ngrants = [{grants}]"));
    assert_eq!(
        granted("{ connection = 'partnre' }"),
        "wharf.toml:8: services.a.grants[0].connection: no connection \"partnre\" is configured; did you mean \
         \"partner\"?"
    );
    assert_eq!(
        granted("{ connection = 'zebra' }"),
        "wharf.toml:8: services.a.grants[0].connection: no connection \"zebra\" is configured; there are: api, partner"
    );
    assert_eq!(
        granted("{ connection = 'partner', path = 'a' }, { connection = 'partner', access = 'write', path = '/a/' }"),
        "wharf.toml:8: services.a.grants[1]: \"partner\" is granted twice with path \"/a\"; keep one of the two"
    );
    assert_eq!(
        granted("{ connection = 'partner', path = '/a' }, { connection = 'partner', access = 'write', path = '/b' }"),
        "no problem"
    );
    assert_eq!(granted("{ connection = 'api', path = '/v1' }"), "no problem");
    assert_eq!(
        granted("{ connection = 'partner', access = 'execute' }"),
        "wharf.toml:8: services.a.grants[0].access: unknown value \"execute\"; it must be one of \"read\", \"write\""
    );
    assert_eq!(
        granted("{ access = 'read' }"),
        "wharf.toml:8: services.a.grants[0].connection: missing: the name of a connection"
    );
    check(&[(
        "[service-defaults]\ngrants = [{ connection = 'a' }]",
        "wharf.toml:2: service-defaults.grants[0].connection: no connection \"a\" is configured; add a table \
         [connections.NAME]",
    )]);
}

#[test]
fn credentials_of_an_origin_are_one_way_and_whole() {
    const SECRET: &str = "{ env = 'PARTNER_PASSWORD' }";
    let place = Place::new();
    let told = |keys: &str| {
        let problems = place.problems(format!(
            "[connections.a]\ntype = 'http'\nurl = 'https://x'\n{}",
            keys.replace(" ?", &format!(" {SECRET}"))
        ));
        problems.replace("wharf.toml:", "").replace("connections.a", "")
    };
    for (keys, expected) in [
        ("user = 'alice'\npassword = ?", "no problem"),
        ("bearer-token = ?", "no problem"),
        ("api-key = ?\napi-key-header = 'X-Key'", "no problem"),
        ("api-key = ?\napi-key-parameter = 'key'", "no problem"),
        ("token-url = 'https://y/token?tenant=a'\nclient-id = 'me'\nclient-secret = ?", "no problem"),
        (
            "token-url = 'https://y/token#a'\nclient-id = 'me'\nclient-secret = ?",
            "4: .token-url: the URL of a token endpoint has no fragment (#)",
        ),
        ("token-url = 'https://y/token'\nclient-id = 'me'\nclient-secret = ?\nscopes = ['a', 'b']", "no problem"),
        ("headers = [{ name = 'Accept', value = 'x' }, { name = 'X-Tenant', secret = ? }]", "no problem"),
        ("proxy = 'http://proxy:3128'\nproxy-user = 'me'\nproxy-password = ?", "no problem"),
        (
            "user = 'alice'\nbearer-token = ?\npassword = ?",
            "5: .bearer-token: user and bearer-token exclude each other: each is a way to show who the connection is",
        ),
        (
            "user = 'alice'",
            "1: .password: missing: it belongs to user; write { env = \"NAME\" } or { file = \"path\" }",
        ),
        ("password = ?", "1: .user: missing: password belongs to it"),
        (
            "bearer-token = 'abc'",
            "4: .bearer-token: a secret is not written into this file; write { env = \"NAME\" } or \
          { file = \"path\" } instead",
        ),
        ("api-key = ?", "4: .api-key: write either api-key-header or api-key-parameter, where the key goes"),
        ("api-key-header = 'X-Key'", "1: .api-key: missing: api-key-header belongs to it"),
        ("api-key = ?\napi-key-header = 'X Key'", "5: .api-key-header: \"X Key\" is not the name of a header"),
        (
            "token-url = 'http://y/token'\nclient-id = 'me'\nclient-secret = ?",
            "4: .token-url: must begin with https: a token would travel unencrypted to this place",
        ),
        (
            "token-url = 'https://y/token'\nclient-id = 'me'",
            "1: .client-secret: missing: what proves it, for the token endpoint",
        ),
        (
            "token-url = 'https://y/t'\nclient-id = 'me'\nclient-secret = ?\nscopes = ['a b']",
            "7: .scopes: \"a b\" is not one word; expected a list of words such as [\"read\", \"write\"]",
        ),
        ("user = 'a:b'\npassword = ?", "1: : the user has a colon in it, which basic authentication cannot tell"),
        (
            "bearer-token = ?\nheaders = [{ name = 'Authorization', value = 'x' }]",
            "1: : the header authorization is set twice: by headers or credentials",
        ),
        ("headers = [{ name = 'Host', value = 'x' }]", "1: : the header host is the host's own to set"),
        ("headers = [{ name = 'X' }]", "4: .headers[0]: write either value, or secret with a reference to one"),
        (
            "proxy = 'https://proxy'",
            "4: .proxy: this is not a URL of http; write one such as \"http://proxy.example.com:3128\"",
        ),
        (
            "proxy = 'proxy.example.com'",
            "4: .proxy: this is not a URL (relative URL without a base); write one such as \
             \"http://proxy.example.com:3128\"",
        ),
        ("proxy-user = 'me'", "1: .proxy: missing: proxy-user and proxy-password belong to it"),
        (
            "proxy = 'http://p'\nproxy-user = 'me'",
            "4: .proxy: write both proxy-user and proxy-password, or none of them",
        ),
        (
            "ping-path = 'x'",
            "1: : the path of a request begins with / or is empty; it goes below the url of the \
          connection, so it is never a URL",
        ),
        (
            "ping-method = 'POST'",
            "4: .ping-method: unknown value \"POST\"; it must be one of \"HEAD\", \"GET\", \"OPTIONS\"",
        ),
        ("certificate-pin = 'abc'", "4: .certificate-pin: a fingerprint is sha256: followed by 64 hexadecimal digits"),
        ("client-key = ?", "1: .client-certificate: missing: client-key belongs to it"),
    ] {
        assert_eq!(told(keys), expected, "for {keys}");
    }
}

#[test]
fn credentials_over_plain_http_are_warned_of() {
    let place = Place::new();
    for (url, warned) in [("http://x", true), ("https://x", false), ("http://localhost:1", false)] {
        let text =
            format!("[connections.a]\ntype = 'http'\nurl = '{url}'\nbearer-token = {{ env = 'PARTNER_PASSWORD' }}");
        let warnings: Vec<String> = place.load(&text).unwrap().warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings.iter().any(|warning| warning.contains("travel unencrypted")),
            warned,
            "{url}: {warnings:?}"
        );
    }
}

#[test]
fn a_connection_with_a_mistake_can_still_be_granted() {
    check(&[(
        "[connections.a]\ntype = 'ftpp'\n[services.s]\ngrants = [{ connection = 'a' }]",
        "wharf.toml:2: connections.a.type: unknown value \"ftpp\"; did you mean \"ftp\"?",
    )]);
}

#[test]
fn an_algorithm_that_there_is_not_is_named_with_those_that_there_are() {
    let server = "[connections.a]\ntype = 'sftp'\nhost = 'h'\nuser = 'u'\npassword = { env = 'PARTNER_PASSWORD' }\n\
                  host-keys = ['SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU']\n";
    let macs = "hmac-sha2-256-etm@openssh.com, hmac-sha2-512-etm@openssh.com, hmac-sha2-256, hmac-sha2-512, \
                hmac-sha1-etm@openssh.com, hmac-sha1";
    check(&[
        (
            &format!("{server}macs = ['rot13']"),
            &format!("wharf.toml:7: connections.a.macs: \"rot13\" is none of the MACs that there are: {macs}"),
        ),
        (&format!("{server}macs = []"), "wharf.toml:7: connections.a.macs: \"\" names no MACs"),
        (&format!("{server}macs = ['-*']"), "wharf.toml:7: connections.a.macs: \"-*\" leaves no MACs"),
        (
            &format!("{server}ssh-options = ['MACs=+rot13']"),
            &format!("wharf.toml:1: connections.a: ssh-options: \"rot13\" is none of the MACs that there are: {macs}"),
        ),
        (
            &format!("{server}macs = ['+hmac-sha1', 'hmac-sha2-512']\nssh-options = ['HostKeyAlgorithms=^ssh-rsa']"),
            "no problem",
        ),
    ]);
}

#[test]
fn a_connection_to_which_every_way_is_switched_off_is_a_mistake() {
    let server = "[connections.a]\ntype = 'sftp'\nhost = 'h'\nuser = 'u'\npassword = { env = 'PARTNER_PASSWORD' }\n\
                  host-keys = ['SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU']\n";
    let left = "no way to log in is left: what is set here is switched off (password, private-key, agent)";
    check(&[
        (&format!("{server}auth = []"), &format!("wharf.toml:7: connections.a.auth: {left}")),
        (
            &format!("{server}ssh-options = ['PreferredAuthentications=publickey']"),
            &format!("wharf.toml:7: connections.a.ssh-options: {left}"),
        ),
    ]);
}

#[test]
fn a_connection_tells_what_it_lacks() {
    check(&[
        ("[connections.a]", "wharf.toml:1: connections.a.type: missing: one of local, ftp, sftp, dropbox, http"),
        (
            "\n[connections.a]\ntype = 'local'",
            "wharf.toml:2: connections.a.folder: missing: the folder of this machine that the connection opens",
        ),
        (
            "[connections.a]\ntype = 'ftp'",
            "wharf.toml:1: connections.a.host: missing: the name or the address of the server\n\
             wharf.toml:1: connections.a.user: missing: the name to log in with, such as \"anonymous\"\n\
             wharf.toml:1: connections.a.password: missing: the password to log in with; write \
             { env = \"NAME\" } or { file = \"path\" }",
        ),
        (
            "[connections.a]\ntype = 'dropbox'",
            "wharf.toml:1: connections.a: nothing to log in with; write either access-token, or app-key and \
             refresh-token (and app-secret, unless it was authorised with PKCE)",
        ),
        (
            "[connections.a]\ntype = 'dropbox'\napp-key = 'k'",
            "wharf.toml:1: connections.a.refresh-token: missing: write either access-token, or app-key and \
             refresh-token (and app-secret, unless it was authorised with PKCE)",
        ),
        (
            "[connections.a]\ntype = 'dropbox'\naccess-token = { env = 'PARTNER_PASSWORD' }\napp-key = 'k'",
            "wharf.toml:4: connections.a.app-key: access-token and app-key exclude each other; write either \
             access-token, or app-key and refresh-token (and app-secret, unless it was authorised with PKCE)",
        ),
        (
            "[connections.a]\ntype = 'dropbox'\naccess-token = { env = 'PARTNER_PASSWORD' }\n\
             api-url = 'http://dropbox.internal'",
            "wharf.toml:4: connections.a.api-url: must begin with https: a token would travel \
             unencrypted to this place",
        ),
        (
            "[connections.a]\ntype = 'dropbox'\naccess-token = { env = 'PARTNER_PASSWORD' }\ncertificate-authority \
             = 'no.pem'",
            "wharf.toml:4: connections.a.certificate-authority: the file no.pem cannot be read: No such file or \
             directory (os error 2)",
        ),
        (
            "[connections.a]\ntype = 'http'\nhost = 'api.example.com'",
            "wharf.toml:1: connections.a.url: missing: the origin, such as \"https://api.example.com/v1\"\n\
             wharf.toml:3: connections.a.host: unknown key; did you mean \"url\"?",
        ),
        (
            "[connections.a]\ntype = 'dropbox'\naccess-token = { env = 'PARTNER_PASSWORD' }\nselect-user = 'dbmid:a'\n\
             select-admin = 'dbmid:b'",
            "wharf.toml:5: connections.a.select-admin: select-user and select-admin exclude each other",
        ),
        (
            "[connections.a]\ntype = 'http'\nurl = 'ftp://x'",
            "wharf.toml:3: connections.a.url: this is not a URL of http or https; write one such as \
             \"https://api.example.com/v1\"",
        ),
        (
            "[connections.a]\ntype = 'http'\nurl = 'api.example.com'",
            "wharf.toml:3: connections.a.url: this is not a URL (relative URL without a base); write one such as \
             \"https://api.example.com/v1\"",
        ),
        (
            "[connections.a]\ntype = 'http'\nurl = 'https://x/?a=b'",
            "wharf.toml:3: connections.a.url: the URL of an origin has no query (?) and no fragment (#)",
        ),
        (
            "[connections.a]\ntype = 'ftp'\nhost = 'h:21'\nuser = 'u'\npassword = { env = 'PARTNER_PASSWORD' \
             }\npassive = 'active'",
            "wharf.toml:3: connections.a.host: write the name of the server alone; the port has a key of its own, \
             port\n\
             wharf.toml:6: connections.a.passive: unknown value \"active\"; it must be one of \"auto\", \"epsv\", \
             \"pasv\", \"pasv-same-host\", \"never\"",
        ),
    ]);
}

#[test]
fn a_local_folder_that_does_not_exist_is_a_problem_of_its_connection() {
    let problems = Place::new().problems("\n[connections.a]\ntype = 'local'\nfolder = 'none'");
    assert!(problems.starts_with("wharf.toml:2: connections.a: "), "{problems}");
    assert!(problems.contains("none"), "{problems}");
}

#[test]
fn names_have_a_form() {
    let long = "n".repeat(129);
    let place = Place::new();
    for (text, path) in [
        ("[services.\"a b\"]".to_owned(), "services.\"a b\": \"a b\"".to_owned()),
        ("[services.\".a\"]".to_owned(), "services.\".a\": \".a\"".to_owned()),
        ("[services.\"\"]".to_owned(), "services.\"\": \"\"".to_owned()),
        (format!("[services.{long}]"), format!("services.{long}: \"{}…\"", "n".repeat(60))),
        (
            "[connections.\"a/b\"]\ntype = 'local'\nfolder = 'inbox'".to_owned(),
            "connections.\"a/b\": \"a/b\"".to_owned(),
        ),
    ] {
        let expected = format!(
            "wharf.toml:1: {path} is not a name; it must have 1 to 128 characters from A-Z, a-z, 0-9, '.', '_' \
             and '-', and not begin with '.'"
        );
        assert_eq!(place.problems(text), expected);
    }
}

#[test]
fn listening_beyond_loopback_must_be_said_to_be_open() {
    check(&[
        (
            "[http]\nlisten = '0.0.0.0:8080'",
            "wharf.toml:2: http.listen: 0.0.0.0:8080 is not a loopback address, so whoever reaches this machine could \
             call every service, without a password; listen on 127.0.0.1, or say that you want this with open = true \
             under [http]",
        ),
        (
            "[admin]\nopen = false\nlisten = '[::]:1'",
            "wharf.toml:3: admin.listen: [::]:1 is not a loopback address, so whoever reaches this machine could \
             read its state and settings, without a password; listen on 127.0.0.1, or say that you want this with \
             open = true under [admin]",
        ),
        ("[http]\nlisten = '192.168.1.1:80'\nopen = true\n[admin]\nlisten = '10.0.0.1:80'\nopen = true", "no problem"),
        ("[http]\nlisten = '[::1]:8080'\n[admin]\nlisten = '[::ffff:127.0.0.1]:8081'", "no problem"),
    ]);
    let place = Place::new();
    let overrides = Overrides { listen: Some("0.0.0.0:1".parse().unwrap()), ..Overrides::default() };
    let error = place.load_with("", overrides, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--listen: 0.0.0.0:1 is not a loopback address, so whoever reaches this machine could call every service, \
         without a password; listen on 127.0.0.1, or say that you want this with open = true under [http]"
    );
}

#[test]
fn the_two_listeners_need_two_addresses() {
    check(&[
        (
            "[http]\nlisten = '127.0.0.1:9'\n[admin]\nlisten = '127.0.0.1:9'",
            "wharf.toml:4: admin.listen: 127.0.0.1:9 is taken by the public listener on 127.0.0.1:9; choose another \
             port",
        ),
        (
            "[http]\nlisten = '[::]:8081'\nopen = true",
            "wharf.toml: admin.listen: 127.0.0.1:8081 is taken by the public listener on [::]:8081; choose another \
             port",
        ),
        ("[http]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'", "no problem"),
        ("[http]\nlisten = '127.0.0.1:9'\n[admin]\nlisten = '127.0.0.2:9'", "no problem"),
        ("[http]\nlisten = '0.0.0.0:9'\nopen = true\n[admin]\nlisten = '[::1]:9'", "no problem"),
    ]);
}

#[test]
fn all_problems_are_told_in_the_order_of_the_file() {
    check(&[(
        "[services.a]\nreuse = 0\nmemroy = 1\n[http]\nopen = 1\n[connections.b]\ntype = 'http'\nurl = 1",
        "wharf.toml:2: services.a.reuse: 0 is out of bounds; it must be from 1 to 1000000\n\
         wharf.toml:3: services.a.memroy: unknown key; did you mean \"memory\"?\n\
         wharf.toml:5: http.open: expected true or false, found an integer\n\
         wharf.toml:8: connections.b.url: expected a URL such as \"https://api.example.com/v1\", found an integer",
    )]);
}

#[test]
fn a_flood_of_problems_is_cut() {
    let text: String = (0..1000).map(|number| format!("key-number-{number} = 1\n")).collect();
    let problems = Place::new().problems(text);
    assert_eq!(problems.lines().count(), 101);
    assert!(problems.ends_with("\nfurther problems are not shown"));
}

#[test]
fn a_file_that_is_no_toml_or_no_text_or_not_there_is_told_so() {
    let place = Place::new();
    assert_eq!(
        place.problems("[http]\nlisten = \n"),
        "wharf.toml:2: not valid TOML: string values must be quoted, expected literal string"
    );
    assert_eq!(place.problems("[http]\n[http]\n"), "wharf.toml:2: not valid TOML: duplicate key");
    assert_eq!(place.problems(b"a = 1\n\xff"), "wharf.toml:2: is not UTF-8 text");
    let missing = Configuration::load(Some(Path::new("/nowhere/wharf.toml")), Overrides::default());
    assert_eq!(
        missing.unwrap_err().to_string(),
        "/nowhere/wharf.toml: cannot be read: No such file or directory (os error 2)"
    );
    let huge = "#".repeat(4 * 1024 * 1024 + 1);
    assert_eq!(place.problems(huge), "wharf.toml: cannot be read: it is larger than 4 MiB");
}

#[test]
fn settings_of_ftp_that_contradict_each_other_are_told() {
    let place = Place::new();
    let case = |lines: &str| {
        let partner = "[connections.a]\ntype = 'ftp'\nhost = 'h'\nuser = 'u'\npassword = { env = 'PARTNER_PASSWORD' }";
        place.problems(format!("{partner}\n{lines}"))
    };
    let digits = "0".repeat(64);
    for (lines, part) in [
        (format!("certificate-pin = 'sha256:{digits}'"), "this says nothing without TLS"),
        ("tls-max = '1.2'".to_owned(), "this says nothing without TLS"),
        ("tls = 'explizit'".to_owned(), "did you mean \"explicit\"?"),
        ("tls = 'explicit'\ncertificate-pin = 'sha1:00'".to_owned(), "64 hexadecimal digits"),
        ("tls = 'explicit'\ntls-max = '1.1'".to_owned(), "tls-max"),
        ("encoding = 'utf-16'".to_owned(), "\"utf-16\" is an encoding in which ASCII does not stay ASCII"),
        ("encoding = 'latin9'".to_owned(), "no encoding is known as \"latin9\"; known are utf-8"),
        ("noop-interval = '1s'".to_owned(), "out of bounds"),
    ] {
        let problems = case(&lines);
        assert!(problems.contains(part), "{lines}: {problems}");
    }
    assert_eq!(case("tls = 'implicit'\npassive = 'never'"), "no problem");
}
