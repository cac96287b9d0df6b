//! The table of address forms. A form that is added here and gets through is a hole.

use super::*;

/// Hosts that must be refused, by text alone.
const REFUSED_HOSTS: &[&str] = &[
    // Loopback, in every way of writing it.
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "127.127.127.127",
    "127.0.0.0",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "017700000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "0177.1",
    "0x7f.0x0.0x0.0x1",
    "127.0.0.0x1",
    "127.0.0.01",
    "0177.0.0.01",
    "00000177.0.0.1",
    "0x0000007f.1",
    "127.0x1",
    "0177.0x0.1",
    "127.65535",
    "127.00000000001",
    "2130706434",
    "2147483647",
    "0x7fffffff",
    "017777777777",
    // This network.
    "0",
    "0.0.0.0",
    "0x0",
    "00",
    "0.0",
    "0.1.2.3",
    "0.255.255.255",
    "0x",
    "00000000000",
    "16777215",
    // Private networks.
    "10.0.0.0",
    "10.0.0.1",
    "10.1",
    "10.255.255.255",
    "167772161",
    "0xa000001",
    "012.0.0.1",
    "0xa.1",
    "172.16.0.1",
    "172.31.255.255",
    "172.20.10.2",
    "0xac.16.0.1",
    "2886729729",
    "192.168.0.1",
    "192.168.1",
    "192.168.257",
    "192.11010305",
    "3232235521",
    "0xc0a80001",
    "0300.0250.0.1",
    "0xc0.0xa8.0.1",
    "192.168.255.255",
    "030052000001",
    // Shared address space and the metadata of clouds.
    "100.64.0.1",
    "100.127.255.254",
    "100.100.100.200",
    "169.254.169.254",
    "169.254.0.1",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518",
    "169.16689662",
    "0xa9.254.0251.254",
    "169.254.169.253",
    "169.254.170.2",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.0.1",
    "192.0.0.170",
    // Documentation, benchmarks, relays, multicast, reserved, broadcast.
    "192.0.2.1",
    "198.51.100.7",
    "203.0.113.9",
    "198.18.0.1",
    "198.19.255.255",
    "192.88.99.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.175.48.1",
    "224.0.0.1",
    "224.0.0.251",
    "239.255.255.250",
    "233.252.0.1",
    "240.0.0.1",
    "250.1.2.3",
    "255.255.255.255",
    "255.255.255.254",
    "4294967295",
    "0xffffffff",
    "037777777777",
    // Names that mean this box.
    "localhost",
    "LOCALHOST",
    "localhost.",
    "LocalHost.",
    "foo.localhost",
    "a.b.localhost",
    "localhost.localdomain",
    "foo.localdomain",
    "ip6-localhost",
    "ip6-loopback",
    "broadcasthost",
    "printer.local",
    "db.internal",
    "metadata.google.internal",
    "metadata.google.internal.",
    "host.docker.internal",
    "wiki.intranet",
    "nas.lan",
    "router.home.arpa",
    "abc.onion",
    // IPv6.
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0001]",
    "[0::1]",
    "[::2]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:127.0.0.1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:a00:1]",
    "[::ffff:192.168.0.1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:0.0.0.0]",
    "[::ffff:100.64.0.1]",
    "[::ffff:255.255.255.255]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::10.0.0.1]",
    "[::169.254.169.254]",
    "[::8.8.8.8]",
    "[::ffff:0:127.0.0.1]",
    "[::ffff:0:8.8.8.8]",
    "[::ffff:0:10.0.0.1]",
    // NAT64.
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b::192.168.1.1]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::0.0.0.0]",
    "[64:ff9b:1::1]",
    "[64:ff9b:1::127.0.0.1]",
    "[64:ff9b:1:2::8.8.8.8]",
    "[64:ff9b::1:8.8.8.8]",
    // 6to4, Teredo, ISATAP, ORCHID, benchmarks, documentation, dummy and discard prefixes.
    "[2002::1]",
    "[2002:7f00:1::]",
    "[2002:7f00:1::1]",
    "[2002:a00:1::]",
    "[2002:c0a8:1::1]",
    "[2002:a9fe:a9fe::1]",
    "[2002:808:808::1]",
    "[2001::1]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "[2001:0:7f00:1::]",
    "[2001:0000:53aa:64c:0:0:80ff:fffe]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[2001:1::1]",
    "[2001:db8::1]",
    "[2001:db8:ffff::1]",
    "[3fff::1]",
    "[3fff:fff::1]",
    "[2620:4f:8000::1]",
    "[100::1]",
    "[100:0:0:1::1]",
    "[5f00::1]",
    "[2606:4700::5efe:127.0.0.1]",
    "[2606:4700::200:5efe:10.0.0.1]",
    "[2606:4700::5efe:192.168.0.1]",
    // Unique local, link-local, site-local, multicast and what is not given out.
    "[fc00::1]",
    "[fd00::1]",
    "[fd12:3456:789a::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::a9fe:a9fe]",
    "[febf::1]",
    "[fec0::1]",
    "[feff::1]",
    "[ff00::1]",
    "[ff02::1]",
    "[ff02::fb]",
    "[ff0e::1]",
    "[ffff:ffff::1]",
    "[1::1]",
    "[200::1]",
    "[1000::1]",
    "[4000::1]",
    "[8000::1]",
    "[c000::1]",
    "[e000::1]",
    "[f000::1]",
];

/// URLs that are refused before their host is looked at, or because of how it is written.
const REFUSED_URLS: &[&str] = &[
    "",
    " ",
    "example.com",
    "//example.com/",
    "/hooks",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "javascript:alert(1)",
    "data:text/plain,x",
    "http://",
    "http:///x",
    "https:example.com",
    "http:/example.com",
    "http://:80/",
    "http://user@example.com/",
    "http://user:pass@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1@example.com/",
    "http://example.com:80@127.0.0.1/",
    "http://a:b@c:d@127.0.0.1/",
    "http://example.com%40127.0.0.1/",
    "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1\\.example.com/",
    "http://example.com\t/",
    "http://example.com\r\nHost:%20x/",
    "http://exam ple.com/",
    "http://example.com\u{0}/",
    "http://①②⑦.⓪.⓪.①/",
    "http://１２７.0.0.1/",
    "http://ⓛocalhost/",
    "http://localhoſt/",
    "http://127。0。0。1/",
    "http://[fe80::1%eth0]/",
    "http://[fe80::1%25eth0]/",
    "http://[::1%25lo]/",
    "http://[::1",
    "http://::1/",
    "http://[]/",
    "http://[127.0.0.1]/",
    "http://[::g]/",
    "http://[::ffff:127.0.0.1.]/",
    "http://[v1.x]/",
    "http://[::1]x/",
    "http://256.0.0.1/",
    "http://1.2.3.4.5/",
    "http://127.0.0.256/",
    "http://4294967296/",
    "http://0x100000000/",
    "http://1.16777216/",
    "http://08.0.0.1/",
    "http://127.0.0.0x/x:y@",
    "http://127..1/",
    "http://.127.0.0.1/",
    "http://127.0.0.1../",
    "http://a..b/",
    "http://-a.example/",
    "http://a-.example/",
    "http://a%2eb/",
    "http://ex*mple.com/",
    "http://a,b/",
    "http://a;b/",
    "http://example.com:/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:-1/",
    "http://example.com:80:80/",
    "http://example.com:+80/",
    "http://example.com:8x/",
];

/// Public hosts that go through, so that the table does not pass by refusing everything.
const PASSED_HOSTS: &[&str] = &[
    "8.8.8.8",
    "1.1.1.1",
    "134744072",
    "0x08080808",
    "010.8.8.8",
    "9.255.255.255",
    "11.0.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.1.1",
    "172.15.1.1",
    "172.32.0.1",
    "192.0.1.1",
    "192.167.1.1",
    "192.169.0.1",
    "198.17.1.1",
    "198.20.0.1",
    "223.255.255.255",
    "[2606:4700:4700::1111]",
    "[2a00:1450:4001:81b::200e]",
    "[2400:cb00::1]",
    "[::ffff:8.8.8.8]",
    "[64:ff9b::8.8.8.8]",
    "[2001:4860:4860::8888]",
    "[2003::1]",
    "[3ffe::1]",
    "[2606:4700::5efe:8.8.8.8]",
    "example.com",
    "EXAMPLE.com.",
    "xn--bcher-kva.example",
    "a.b.c.d.e",
    "localhost.example.com",
    "notlocalhost",
    "127.0.0.1.nip.io",
    "internal.example",
    "1.example",
];

fn verdict(url: &str, allowed: &Allowed) -> Result<Target, Refusal> {
    let target = target(url)?;
    check_text(&target, allowed)?;
    // What a resolver would give for a literal is the literal.
    if let Some(address) = target.literal {
        check_addresses(&target, &[SocketAddr::new(address, 1)], allowed, |_| false)?;
    }
    Ok(target)
}

#[test]
fn no_form_of_an_inner_address_gets_through() {
    let none = Allowed::default();
    let mut tried = 0;
    for host in REFUSED_HOSTS {
        for url in [format!("http://{host}/hook"), format!("https://{host}:8065/hook?x=y#z")] {
            assert!(verdict(&url, &none).is_err(), "{url} got through");
        }
        tried += 1;
    }
    for url in REFUSED_URLS {
        assert!(verdict(url, &none).is_err(), "{url:?} got through");
        tried += 1;
    }
    println!("{tried} forms refused");
    assert!(tried >= 200, "{tried}");
    for host in PASSED_HOSTS {
        let url = format!("https://{host}/hook");
        assert!(verdict(&url, &none).is_ok(), "{url} {:?}", verdict(&url, &none));
    }
}

#[test]
fn every_address_behind_a_name_is_looked_at() {
    let none = Allowed::default();
    let target = target("http://bot.example:8080/x").unwrap();
    let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 9);
    let check = |found: &[&str]| {
        let found: Vec<SocketAddr> = found.iter().map(|text| at(text)).collect();
        check_addresses(&target, &found, &none, |own| own == "8.8.4.4".parse::<IpAddr>().unwrap())
    };
    let good = check(&["8.8.8.8", "2606:4700::1"]).unwrap();
    assert_eq!(good, ["8.8.8.8:8080".parse().unwrap(), "[2606:4700::1]:8080".parse().unwrap()]);
    for bad in [
        &["127.0.0.1"][..],
        &["8.8.8.8", "127.0.0.1"],
        &["8.8.8.8", "::1"],
        &["2606:4700::1", "::ffff:10.0.0.1"],
        &["fe80::1"],
        &["8.8.8.8", "169.254.169.254", "1.1.1.1"],
        // This box, by its public address.
        &["8.8.4.4"],
        &["::ffff:8.8.4.4"],
        &[],
    ] {
        assert!(check(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn an_operator_lists_names_addresses_and_networks() {
    let list = ["bot.local".to_owned(), "10.1.2.0/24".to_owned(), "fd00::/8".to_owned(), "127.0.0.1".to_owned()];
    let allowed = Allowed::parse(&list).unwrap();
    for url in [
        "http://bot.local/",
        "http://10.1.2.3/",
        "http://0xa010203/",
        "http://[::ffff:10.1.2.3]/",
        "http://[fd12::1]:9/",
        "http://127.0.0.1:3000/",
        "http://2130706433/",
    ] {
        assert!(verdict(url, &allowed).is_ok(), "{url}");
    }
    for url in
        ["http://x.bot.local/", "http://10.1.3.1/", "http://[fe80::1]/", "http://127.0.0.2/", "http://localhost/"]
    {
        assert!(verdict(url, &allowed).is_err(), "{url}");
    }
    let named = target("http://bot.local/").unwrap();
    assert!(check_addresses(&named, &["10.9.9.9:1".parse().unwrap()], &allowed, |_| false).is_ok());
    let other = target("http://bot.example/").unwrap();
    assert!(check_addresses(&other, &["10.1.2.9:1".parse().unwrap()], &allowed, |_| false).is_ok());
    assert!(
        check_addresses(&other, &["10.1.2.9:1".parse().unwrap(), "10.9.9.9:1".parse().unwrap()], &allowed, |_| false)
            .is_err()
    );
    for bad in ["10.0.0.0/33", "a b", "", "http://x", "::/129", "10.0.0/8"] {
        assert_eq!(Allowed::parse(&[bad.to_owned()]), Err(bad.to_owned()), "{bad}");
    }
}

#[test]
fn what_is_sent_names_the_host_as_it_is() {
    let sent = |url: &str| {
        let target = target(url).unwrap();
        (target.authority, target.path, target.is_https)
    };
    assert_eq!(sent("https://Bot.Example./a?b=c#d"), ("bot.example".to_owned(), "/a?b=c".to_owned(), true));
    assert_eq!(sent("http://bot.example:443"), ("bot.example:443".to_owned(), "/".to_owned(), false));
    assert_eq!(sent("http://[2606:4700:0::1]:80/x"), ("[2606:4700::1]".to_owned(), "/x".to_owned(), false));
    assert_eq!(sent("http://0x08080808/"), ("8.8.8.8".to_owned(), "/".to_owned(), false));
}
