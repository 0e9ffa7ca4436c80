import re
from configparser import ConfigParser
from pathlib import Path

DVC = Path(__file__).resolve().parent.parent / ".dvc"


def test_the_page_of_dvc_plots_holds_its_scripts_and_loads_nothing():
    config = ConfigParser()
    config.read(DVC / "config")
    page = (DVC / config["plots"]["html_template"]).read_text(encoding="utf-8")
    vega, vega_lite, vega_embed = re.findall("<script>(.{50000,}?)</script>", page, re.DOTALL)
    assert ").vega=" in vega
    assert ").vegaLite=" in vega_lite
    assert ").vegaEmbed=" in vega_embed
    rest = re.sub("<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "{plot_divs}" in rest
    assert "{scripts}" not in rest
    assert "//" not in rest
