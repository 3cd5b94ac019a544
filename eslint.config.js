/** ESLint: what a slip of the pen looks like, in the client, its tests, the pages and the peers. */

import js from '@eslint/js';
import globals from 'globals';

const BROWSER = ['listener/web/static/**/*.js'];
const NODE = ['clients/js/{test,testing}/**/*.js', 'tests/**/*.js', 'bench/peers/*.js', '*.js'];

export default [
  { ignores: ['.venv*/', 'build/', 'dist/', '.hypothesis/', '**/*.d.ts'] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2022, sourceType: 'module' },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      'array-callback-return': 'error',
      curly: ['error', 'multi-line'],
      'default-case-last': 'error',
      'dot-notation': 'error',
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-console': 'error',
      'no-constructor-return': 'error',
      'no-else-return': 'error',
      'no-eval': 'error',
      'no-implicit-coercion': 'error',
      'no-param-reassign': 'error',
      'no-self-compare': 'error',
      'no-shadow': 'error',
      'no-template-curly-in-string': 'error',
      'no-throw-literal': 'error',
      'no-unreachable-loop': ['error', { ignore: ['ForOfStatement'] }],
      'no-unused-private-class-members': 'off', // It does not see `??=` read.
      'no-unused-expressions': 'error',
      'no-unused-vars': ['error', { varsIgnorePattern: '^_', ignoreRestSiblings: true }],
      'no-use-before-define': ['error', { functions: false, classes: false, variables: false }],
      'no-useless-return': 'error',
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-const': 'error',
      'prefer-promise-reject-errors': 'error',
      'prefer-template': 'error',
    },
  },
  // The client runs in both: only what browsers and Node share.
  { files: ['clients/js/*.js'], languageOptions: { globals: globals['shared-node-browser'] } },
  { files: BROWSER, languageOptions: { globals: globals.browser } },
  { files: NODE, languageOptions: { globals: globals.node } },
  // What is measured and shown there is its result.
  {
    files: ['bench/peers/*.js'],
    languageOptions: { sourceType: 'commonjs' },
    rules: { 'no-console': 'off' },
  },
];
