// Before anything is painted: what was chosen last, if anything.
'use strict'
try {
  const chosen = localStorage.getItem('oneport-theme')
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen
} catch {
  // no storage here: the system's choice holds
}
