import json
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from pydantic import ValidationError

from listener.environment import VARIABLES, service_links
from listener.errors import SettingsError
from listener.setting_types import HOST_CHARS_MAX, TOKEN_CHARS_MAX, URL_CHARS_MAX
from listener.settings import TOKENS_MAX, Merchant, Settings, load

SECRET = "5cf371e7b1a94c7e9c5c0d9ee1b5b6d2"
MERCHANT = f'[merchants.200043]\ntokens = ["{SECRET}"]\n'

Load = Callable[..., Settings]


@pytest.fixture(name="loaded")
def _loaded(tmp_path: Path) -> Load:
    def loaded(text: str, /, **environ: str) -> Settings:
        path = tmp_path / "listener.toml"
        path.write_text(text, encoding="utf-8")
        return load(path, environ)

    return loaded


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(SettingsError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    everything = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert SECRET not in everything
    return text


def test_a_whole_file_is_read(loaded: Load) -> None:
    settings = loaded(
        """
        host = "0.0.0.0"
        port = 0
        database = "postgresql://user@host/name"
        public_url = "https://pos.example.com/"
        origins = ["https://Till.example.com"]
        confirm = "always"
        [pockyt]
        url = "https://mapi.yuansferdev.com"
        timeout_seconds = 2.5
        [merchants.200043]
        tokens = ["current", "previous"]
        stores = ["303660", "300014"]
        """
    )
    assert (settings.host, settings.port) == ("0.0.0.0", 0)
    assert settings.database == "postgresql://user@host/name"
    assert settings.public_url == "https://pos.example.com"
    assert settings.origins == ("https://till.example.com",)
    assert settings.confirm == "always"
    assert settings.pockyt.url == "https://mapi.yuansferdev.com"
    assert settings.pockyt.timeout_seconds == 2.5
    merchant = settings.merchants["200043"]
    assert [token.get_secret_value() for token in merchant.tokens] == ["current", "previous"]
    assert merchant.stores == ("303660", "300014")


def test_defaults_need_only_a_merchant(loaded: Load) -> None:
    settings = loaded(MERCHANT)
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.database == "sqlite:///ledger.db"
    assert settings.public_url is None
    assert settings.origins == ()
    assert settings.confirm == "suspicious"
    assert settings.pockyt.url == "https://mapi.pockyt.io"
    assert settings.pockyt.timeout_seconds == 10
    assert settings.merchants["200043"].stores == ()


def test_the_environment_is_enough_without_a_file() -> None:
    settings = load(
        None,
        {
            "PATH": "/bin",
            "LISTENER_HOST": "::1",
            "LISTENER_PORT": "9000",
            "LISTENER_DATABASE": "sqlite:////srv/ledger.db",
            "LISTENER_PUBLIC_URL": "https://pos.example.com",
            "LISTENER_ORIGINS": '["https://a.example"]',
            "LISTENER_CONFIRM": "off",
            "LISTENER_POCKYT_URL": "http://127.0.0.1:1",
            "LISTENER_POCKYT_TIMEOUT_SECONDS": "1.5",
            "LISTENER_MERCHANTS": '{"7": {"tokens": ["t"], "stores": ["1"]}}',
        },
    )
    assert (settings.host, settings.port) == ("::1", 9000)
    assert settings.database == "sqlite:////srv/ledger.db"
    assert settings.origins == ("https://a.example",)
    assert settings.confirm == "off"
    assert settings.pockyt.url == "http://127.0.0.1:1"
    assert settings.pockyt.timeout_seconds == 1.5
    assert settings.merchants["7"].stores == ("1",)


def test_the_environment_wins_over_the_file(loaded: Load) -> None:
    settings = loaded(
        "port = 1\n" + MERCHANT, LISTENER_PORT="2", LISTENER_MERCHANTS='{"9": {"tokens": ["t"]}}'
    )
    assert settings.port == 2
    assert list(settings.merchants) == ["9"]


def test_origins_may_be_separated_by_commas(loaded: Load) -> None:
    settings = loaded(MERCHANT, LISTENER_ORIGINS="https://a.example, http://b.example:81,")
    assert settings.origins == ("https://a.example", "http://b.example:81")


@pytest.mark.parametrize(
    ("text", "environ", "named"),
    [
        ("hots = 'x'\n" + MERCHANT, {}, ('"hots"', 'did you mean "host"?')),
        ("[pockyt]\nurll = 'x'\n" + MERCHANT, {}, ('"pockyt.urll"', '"pockyt.url"?')),
        (MERCHANT + "token = 'x'\n", {}, ('"merchants.200043.token"', ".tokens")),
        (MERCHANT, {"LISTENER_PROT": "1"}, ('"LISTENER_PROT"', '"LISTENER_PORT"?')),
        ("zzzz = 1\n" + MERCHANT, {}, ('"zzzz"', "known are host, port, database")),
        (MERCHANT.replace("merchants", "merchant"), {}, ('"merchant"', '"merchants"?')),
        (MERCHANT.replace("tokens", "token"), {}, ('"merchants.200043.token"', ".tokens")),
        (
            "",
            {"LISTENER_MERCHANTS": '{"7": {"tokens": ["t"], "shops": []}}'},
            ('"merchants.7.shops"', "in LISTENER_MERCHANTS", '"merchants.7.stores"?'),
        ),
    ],
)
def test_a_misspelt_name_is_named_with_the_one_that_was_meant(
    loaded: Load, text: str, environ: Mapping[str, str], named: tuple[str, ...]
) -> None:
    told = refusal(lambda: loaded(text, **environ))
    assert all(part in told for part in ("unknown setting", *named)), told


def test_a_hostile_name_stays_on_one_short_line(loaded: Load) -> None:
    told = refusal(lambda: loaded('"a\\nb' + "c" * 1_000 + '" = 1\n' + MERCHANT))
    assert "a\\nbcc" in told
    assert len(told) < 500


@pytest.mark.parametrize("text", ["", "[merchants]", "port = 1"])
def test_no_merchant_is_refused_with_the_way_to_add_one(loaded: Load, text: str) -> None:
    told = refusal(lambda: loaded(text))
    assert "[merchants.<merchantNo>]" in told
    assert "LISTENER_MERCHANTS" in told
    assert refusal(lambda: load(None, {})) == told


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('port = "8080"', '"port"'),
        ("port = true", '"port"'),
        ("port = -1", '"port"'),
        ("port = 65536", '"port"'),
        ('host = ""', '"host"'),
        ('host = "a b"', '"host"'),
        ('host = "a\\u0000"', '"host"'),
        ('database = "sqlite:///a\\u0000"', '"database"'),
        ("host = 1", '"host"'),
        (f'host = "{"h" * (HOST_CHARS_MAX + 1)}"', '"host"'),
        ('database = "ledger.db"', '"database"'),
        ('database = "sqlite:///"', '"database"'),
        (f'database = "mysql://u:{SECRET}@h/n"', '"database"'),
        ('public_url = "ftp://h"', '"public_url"'),
        ('public_url = "https://"', '"public_url"'),
        ('public_url = "https://a b"', '"public_url"'),
        ('public_url = "https://h:99999"', '"public_url"'),
        ('public_url = "https://[::1"', '"public_url"'),
        (f'public_url = "https://u:{SECRET}@h"', '"public_url"'),
        ('public_url = "https://h/?q=1"', '"public_url"'),
        (f'public_url = "https://h/{"x" * URL_CHARS_MAX}"', '"public_url"'),
        ('origins = ["*"]', '"origins.0"'),
        ('origins = ["https://h/path"]', '"origins.0"'),
        ('origins = "https://h"', '"origins"'),
        ('confirm = "sometimes"', '"confirm"'),
        ("pockyt = 1", '"pockyt"'),
        ("pockyt = {timeout_seconds = 0.09}", '"pockyt.timeout_seconds"'),
        ("pockyt = {timeout_seconds = 60.01}", '"pockyt.timeout_seconds"'),
        ("pockyt = {timeout_seconds = nan}", '"pockyt.timeout_seconds"'),
        ("pockyt = {timeout_seconds = true}", '"pockyt.timeout_seconds"'),
        ('pockyt = {timeout_seconds = "10"}', '"pockyt.timeout_seconds"'),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(loaded: Load, line: str, named: str) -> None:
    told = refusal(lambda: loaded(f"{line}\n{MERCHANT}"))
    assert named in told
    assert "must" in told


def test_a_database_may_be_written_as_its_provider_writes_it(loaded: Load) -> None:
    assert loaded(f'database = "postgres://u:p@h/n"\n{MERCHANT}').database == "postgres://u:p@h/n"


def test_a_wrong_database_is_answered_with_the_kind_that_there_is(loaded: Load) -> None:
    told = refusal(lambda: loaded(f'database = "ledger.db"\n{MERCHANT}'))
    assert told.endswith("must be sqlite:///PATH or postgresql://USER@HOST/NAME")


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"tokens": []}, "tokens"),
        ({"tokens": [""]}, "tokens.0"),
        ({"tokens": ["  "]}, "tokens.0"),
        ({"tokens": [f"{SECRET}\n"]}, "tokens.0"),
        ({"tokens": [f"{SECRET}\u0000x"]}, "tokens.0"),
        ({"tokens": [f"{SECRET}\ud800"]}, "tokens.0"),
        ({"tokens": ["x" * (TOKEN_CHARS_MAX + 1)]}, "tokens.0"),
        ({"tokens": [SECRET] * (TOKENS_MAX + 1)}, "tokens"),
        ({"tokens": SECRET}, "tokens"),
        ({"tokens": [[SECRET]]}, "tokens.0"),
        ({"stores": ["1"]}, "tokens"),
        ({"tokens": [SECRET], "stores": ["1", "1"]}, "stores"),
        ({"tokens": [SECRET], "stores": ["1/2"]}, "stores.0"),
        ({"tokens": [SECRET], "stores": ["-"]}, "stores.0"),
        ({"tokens": [SECRET], "stores": [1]}, "stores.0"),
        ({"tokens": [SECRET], "stores": ["x" * 65]}, "stores.0"),
    ],
)
def test_a_wrong_merchant_is_refused_without_its_tokens(
    table: Mapping[str, object], named: str
) -> None:
    environ = {"LISTENER_MERCHANTS": json.dumps({"7": table})}
    assert f'"merchants.7.{named}" in LISTENER_MERCHANTS' in refusal(lambda: load(None, environ))


@pytest.mark.parametrize("number", ["", "1 2", "x" * 65, "1/2", "１"])
def test_a_merchant_number_is_letters_that_fit_a_route(number: str) -> None:
    environ = {"LISTENER_MERCHANTS": json.dumps({number: {"tokens": [SECRET]}})}
    assert "1 to 64" in refusal(lambda: load(None, environ))


@pytest.mark.parametrize(
    ("line", "expected"), [("port = 65535", 65535), ("port = 0", 0), ("port = 1", 1)]
)
def test_a_port_at_the_edge_is_taken(loaded: Load, line: str, expected: int) -> None:
    assert loaded(f"{line}\n{MERCHANT}").port == expected


@pytest.mark.parametrize("seconds", [0.1, 1, 60])
def test_a_timeout_at_the_edge_is_taken(loaded: Load, seconds: float) -> None:
    settings = loaded(f"pockyt = {{timeout_seconds = {seconds}}}\n{MERCHANT}")
    assert settings.pockyt.timeout_seconds == seconds


def test_a_merchant_at_its_limits_is_taken() -> None:
    tokens = ["x" * TOKEN_CHARS_MAX, *"1234567"]
    assert len(tokens) == TOKENS_MAX
    environ = {
        "LISTENER_MERCHANTS": json.dumps({"x" * 64: {"tokens": tokens, "stores": ["y" * 64]}})
    }
    assert list(load(None, environ).merchants) == ["x" * 64]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LISTENER_PORT", SECRET),
        ("LISTENER_POCKYT_TIMEOUT_SECONDS", SECRET),
        ("LISTENER_MERCHANTS", f'{{"7": "{SECRET}'),
        ("LISTENER_MERCHANTS", "[" * 100_000),
        ("LISTENER_MERCHANTS", f'["{SECRET}"]'),
        ("LISTENER_MERCHANTS", f'{{"7": "{SECRET}"}}'),
        ("LISTENER_ORIGINS", f'["{SECRET}'),
        ("LISTENER_DATABASE", SECRET),
    ],
)
def test_a_variable_that_cannot_be_read_is_named_and_not_shown(variable: str, text: str) -> None:
    assert variable in refusal(lambda: load(None, {variable: text, **_merchant(variable)}))


def _merchant(variable: str) -> dict[str, str]:
    taken = variable == "LISTENER_MERCHANTS"
    return {} if taken else {"LISTENER_MERCHANTS": '{"7": {"tokens": ["t"]}}'}


def test_a_variable_cannot_go_into_what_is_not_a_table(loaded: Load) -> None:
    told = refusal(lambda: loaded("pockyt = 1\n" + MERCHANT, LISTENER_POCKYT_URL="https://h"))
    assert '"pockyt" must be a table' in told


@pytest.mark.parametrize("text", ["port = ", f'port = 1\nport = "{SECRET}"', f"tokens = [{SECRET}"])
def test_a_file_that_is_not_toml_is_refused_with_the_place(loaded: Load, text: str) -> None:
    told = refusal(lambda: loaded(text))
    assert "is not TOML" in told
    assert "line" in told or "end of document" in told


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "nowhere.toml cannot be read" in refusal(lambda: load(tmp_path / "nowhere.toml", {}))
    assert "cannot be read" in refusal(lambda: load(tmp_path, {}))
    (tmp_path / "bytes.toml").write_bytes(b"host = '\xff'")
    assert "not UTF-8" in refusal(lambda: load(tmp_path / "bytes.toml", {}))


def test_a_file_with_a_byte_order_mark_is_read(loaded: Load) -> None:
    assert list(loaded("\ufeff" + MERCHANT).merchants) == ["200043"]


def test_no_secret_is_in_the_repr_nor_in_the_json(loaded: Load) -> None:
    settings = loaded(f'database = "postgresql://u:{SECRET}@h/n"\n{MERCHANT}')
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert SECRET not in repr(settings.merchants)


def test_settings_made_in_code_hide_their_tokens_too() -> None:
    with pytest.raises(ValidationError) as caught:
        Merchant.model_validate({"tokens": [f" {SECRET}"]})
    assert SECRET not in str(caught.value)


def test_settings_do_not_change(loaded: Load) -> None:
    settings = loaded(MERCHANT)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, "port", 1)  # noqa: B010  # past mypy, as careless code would


# The environment


@pytest.mark.parametrize("service", ["LISTENER", "LISTENER_WEB"])
def test_service_links_of_kubernetes_are_no_settings(service: str) -> None:
    links = {
        f"{service}_SERVICE_HOST": "10.96.0.10",
        f"{service}_SERVICE_PORT": "8080",
        f"{service}_SERVICE_PORT_HTTP": "8080",
        f"{service}_PORT": "tcp://10.96.0.10:8080",
        f"{service}_PORT_8080_TCP": "tcp://10.96.0.10:8080",
        f"{service}_PORT_8080_TCP_PROTO": "tcp",
        f"{service}_PORT_8080_TCP_PORT": "8080",
        f"{service}_PORT_8080_TCP_ADDR": "10.96.0.10",
        f"{service}_PORT_53_UDP": "udp://[fd00::a]:53",
        f"{service}_PORT_9_SCTP_ADDR": "fd00::a",
    }
    settings = load(None, {**links, **_merchant("")})
    assert settings.port == 8080
    assert service_links(links) == tuple(sorted(links))


@pytest.mark.parametrize(
    "variable", ["LISTENER_SERVICE_HOSTS", "LISTENER_PORT_8080", "LISTENER_PORT_X_TCP", "LISTENER_"]
)
def test_a_variable_that_only_looks_like_a_service_link_is_unknown(variable: str) -> None:
    assert f'"{variable}"' in refusal(lambda: load(None, {variable: "1", **_merchant("")}))


def test_a_port_is_a_port_and_no_service_link() -> None:
    environ = {"LISTENER_PORT": "9000", **_merchant("")}
    assert load(None, environ).port == 9000
    assert service_links(environ) == ()
    wrong = {"LISTENER_PORT": "tcp://here", **_merchant("")}
    assert "LISTENER_PORT must be" in refusal(lambda: load(None, wrong))


@pytest.mark.parametrize("empty", ["", "  ", "\n", '""', "''"])
def test_an_empty_variable_counts_as_not_set(loaded: Load, empty: str) -> None:
    settings = loaded("port = 1\n" + MERCHANT, **dict.fromkeys(VARIABLES, empty))
    assert settings.port == 1
    assert list(settings.merchants) == ["200043"]


def test_quotes_and_blanks_around_a_variable_are_taken_off() -> None:
    settings = load(
        None,
        {
            "LISTENER_PORT": '"9000"\r',
            "LISTENER_HOST": "'127.0.0.2' ",
            "LISTENER_MERCHANTS": '\'{"7": {"tokens": ["t"]}}\'',
            "LISTENER_ORIGINS": ' "https://a.example, https://b.example"',
        },
    )
    assert (settings.port, settings.host) == (9000, "127.0.0.2")
    assert settings.origins == ("https://a.example", "https://b.example")
    assert list(settings.merchants) == ["7"]
    # One pair, and only a pair.
    for text in ("\"'9000'\"", '"9000', "9000'"):
        assert "LISTENER_PORT" in refusal(partial(load, None, {"LISTENER_PORT": text}))


@pytest.mark.parametrize(
    "text",
    [
        f'{{"7": {{"tokens": ["{SECRET}"]}}, "7": {{"tokens": ["{SECRET}x"]}}}}',
        f'{{"7": {{"tokens": ["{SECRET}"], "tokens": ["{SECRET}x"]}}}}',
        f'{{"7": {{"tokens": [{SECRET}]}}}}',
        f'{{"7": {{"tokens": ["{SECRET}\\ud800"]}}}}',
        f'{{"7": "{SECRET}"}}',
        f'"{SECRET}"',
        "null",
        "NaN",
        "{'7': {'tokens': ['t']}}",
    ],
)
def test_odd_json_for_the_merchants_is_refused_in_one_line(text: str) -> None:
    assert "LISTENER_MERCHANTS" in refusal(lambda: load(None, {"LISTENER_MERCHANTS": text}))


def test_json_for_the_merchants_may_have_a_byte_order_mark() -> None:
    environ = {"LISTENER_MERCHANTS": '\ufeff{"7": {"tokens": ["t"]}}'}
    assert list(load(None, environ).merchants) == ["7"]


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "listener.toml"
    path.write_bytes(b"\xef\xbb\xbfport = 1\r\n" + MERCHANT.replace("\n", "\r\n").encode())
    assert load(path, {}).port == 1
    path.write_text(MERCHANT, encoding="utf-16")
    assert "not UTF-8" in refusal(lambda: load(path, {}))


def test_the_variable_that_names_the_file_is_not_a_setting() -> None:
    assert load(None, {"LISTENER_CONFIG": "listener.toml", **_merchant("")}).port == 8080


# URLs and hosts


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("HTTPS://Pos.Example.COM/", "https://pos.example.com"),
        ("https://pos.example.com:443/shop/", "https://pos.example.com/shop"),
        ("https://pos.example.com:8443", "https://pos.example.com:8443"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://[2001:DB8::1]", "http://[2001:db8::1]"),
        ("https://kasse-münchen.example", "https://xn--kasse-mnchen-jlb.example"),
    ],
)
def test_a_url_is_kept_as_machines_write_it(loaded: Load, text: str, read: str) -> None:
    assert loaded(f'public_url = "{text}"\n{MERCHANT}').public_url == read


def test_an_origin_is_kept_as_browsers_write_it(loaded: Load) -> None:
    settings = loaded(f'origins = ["https://Kasse-München.example:443"]\n{MERCHANT}')
    assert settings.origins == ("https://xn--kasse-mnchen-jlb.example",)


@pytest.mark.parametrize("text", ["http://::1", "http://[::1", "http://[::1]x", "https://ü..de"])
def test_a_url_that_no_machine_could_use_is_refused(loaded: Load, text: str) -> None:
    assert '"public_url"' in refusal(lambda: loaded(f'public_url = "{text}"\n{MERCHANT}'))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("h:80", "that begins with http:// or https://"),
        ("ftp://h", "that begins with http:// or https://"),
        ("http://h:99999", "that has a port from 1 to 65535"),
        ("http://h:0", "that has a port from 1 to 65535"),
        ("http://h:web", "that has a port from 1 to 65535"),
        ("http://::1", "an IPv6 address goes in brackets"),
        ("https://a b", "that has no blank in it"),
        ("https://", "that names a host"),
        ("http://[::1", "that names a host"),
        ("https://ü..de", "that names a host"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(loaded: Load, text: str, reason: str) -> None:
    told = refusal(lambda: loaded(f'public_url = "{text}"\n{MERCHANT}'))
    assert told.partition(" must be a URL ")[2].startswith(reason) or reason in told
    assert ("begins with" in told) == ("begins with" in reason)
    if "://" in text and "ü" not in text:
        environ = {"LISTENER_POCKYT_PROXY": text, **_merchant("")}
        assert reason in refusal(lambda: load(None, environ))


def test_a_host_may_be_in_brackets(loaded: Load) -> None:
    assert loaded(f'host = "[::1]"\n{MERCHANT}').host == "::1"


# The way to Pockyt

MADE_UP: Final = {"HTTPS_PROXY": "http://proxy:3128"}


def proxy_of(settings: Settings) -> str | None:
    proxy = settings.pockyt.proxy
    return proxy.get_secret_value() if proxy else None


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        (MADE_UP, "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://lower", "HTTPS_PROXY": "http://upper"}, "http://lower"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://upper"}, None),
        ({"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "https://me:hidden@proxy"}, "https://me:hidden@proxy"),
        # For another kind of URL than Pockyt's.
        ({"HTTP_PROXY": "http://proxy:3128"}, None),
        (MADE_UP | {"NO_PROXY": "example.com, .pockyt.io"}, None),
        (MADE_UP | {"no_proxy": "MAPI.pockyt.io"}, None),
        (MADE_UP | {"NO_PROXY": "*.pockyt.io"}, None),
        (MADE_UP | {"NO_PROXY": "*"}, None),
        (MADE_UP | {"NO_PROXY": "ockyt.io,example.com,"}, "http://proxy:3128"),
        (MADE_UP | {"no_proxy": "", "NO_PROXY": "pockyt.io"}, None),
        ({"LISTENER_POCKYT_PROXY": "http://ours:1"} | MADE_UP, "http://ours:1"),
        ({"LISTENER_POCKYT_PROXY": "http://ours:1", "NO_PROXY": "*"}, "http://ours:1"),
    ],
)
def test_the_proxy_is_the_one_that_other_programs_use(
    environ: Mapping[str, str], proxy: str | None
) -> None:
    assert proxy_of(load(None, {**environ, **_merchant("")})) == proxy


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://sandbox.example:8090", "http://proxy"),
        ("http://127.0.0.1:8090", None),
        ("http://[::1]:8090", None),
        ("http://localhost:8090", None),
    ],
)
def test_this_machine_is_reached_without_a_proxy(loaded: Load, url: str, proxy: str | None) -> None:
    text = f'pockyt.url = "{url}"\n{MERCHANT}'
    assert proxy_of(loaded(text, HTTP_PROXY="http://proxy")) == proxy
    # Unless the settings say so.
    text = f'pockyt = {{url = "{url}", proxy = "http://mine"}}\n{MERCHANT}'
    assert proxy_of(loaded(text)) == "http://mine"


@pytest.mark.parametrize(
    "text",
    [
        f"socks5://me:{SECRET}@proxy:1080",
        f"http://me:{SECRET}@",
        f"http://{SECRET} proxy",
        f"http://proxy/{SECRET}",
        f"http://proxy/?{SECRET}",
        "http://proxy:0",
        "http://proxy:99999",
        "http://me:%E2%82%AC@proxy",
        f"http://proxy{'y' * URL_CHARS_MAX}",
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_by_its_name(text: str) -> None:
    environ = {"LISTENER_POCKYT_PROXY": text, **_merchant("")}
    assert '"pockyt.proxy" in LISTENER_POCKYT_PROXY must' in refusal(lambda: load(None, environ))
    environ = {"HTTPS_PROXY": text, **_merchant("")}
    assert "HTTPS_PROXY must" in refusal(lambda: load(None, environ))


def test_a_proxys_password_is_shown_by_nothing(loaded: Load) -> None:
    settings = loaded(MERCHANT, HTTPS_PROXY=f"http://me:{SECRET}@proxy")
    assert SECRET in str(proxy_of(settings))
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()
