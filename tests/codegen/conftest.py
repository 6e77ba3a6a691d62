import pytest

from torchy.codegen.cpu import Compiler


@pytest.fixture(scope="session")
def compiler():
    return Compiler()
