"""Lists on the site look as on the page of the repository."""

from tools.lists import nested

PAGE = """\
- one

  more of it:

      its code
- two

  ```sh
  command
  ```

1. first

       its code

Text, and after it

    code of the page

```sh
- no entry
  of a list
```
"""
SITE = """\
- one

    more of it:

        its code
- two

    ```sh
    command
    ```

1. first

        its code

Text, and after it

    code of the page

```sh
- no entry
  of a list
```
"""


def test_what_belongs_to_an_entry_stands_in_the_fourth_column() -> None:
    assert SITE == nested(PAGE)
