import re
from configparser import ConfigParser
from pathlib import Path

import yaml

from matpac.report.curves import CHARTS

PROJECT = Path(__file__).resolve().parent.parent
DVC = PROJECT / ".dvc"


def test_dvc_and_the_report_plot_the_same_columns_in_the_same_order():
    plots = [
        plot
        for entry in yaml.safe_load((PROJECT / "dvc.yaml").read_text())["plots"]
        for plot in entry.values()
    ]
    columns = [column for plot in plots for column in plot["y"].values()]
    plotted = [{column} if isinstance(column, str) else set(column) for column in columns]
    assert plotted == [set(chart.columns) for chart in CHARTS]


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
