"""How the parameters of a flow look in Prefect's pages."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from matpac.params import load_params


@dataclass(frozen=True)
class Shown:
    """Marks an annotation: a description, and the values of a drop-down as they are when a flow is deployed.

    A pydantic `Field` does not do: Prefect puts its own, which has neither, on top.
    """

    description: str
    values: Callable[[], Iterable[str]] | None = None

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(core_schema) | {"description": self.description}
        if self.values and (values := list(self.values())):
            schema["enum"] = values
        return schema


def names_of_datasets() -> list[str]:
    try:
        return list(load_params().datasets)
    except ValueError:
        return []  # The flow itself says what is wrong with params.yaml.


DatasetName = Annotated[str, Shown("A name under `datasets` in params.yaml.", names_of_datasets)]
